"""From a configuration to a network: the only file that imports sam2."""

from __future__ import annotations

from functools import partial

from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
from sam2.modeling.position_encoding import PositionEmbeddingSine, compute_axial_cis
from sam2.modeling.sam.transformer import Attention, RoPEAttention
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import LayerNorm2d

from napari_uniultra.model.config import ModelConfig
from napari_uniultra.model.rotary import PooledKeys, PooledMemory, memory_rotations
from napari_uniultra.model.trunk import AdaptedTrunk

__all__ = ["LayerNorm2d", "SAM2Base", "build_network", "network_arguments"]

_STRIDE = 16  # of the coarsest feature map that the decoder and the memory see
_DIM = 256
_MEMORY_DIM = 64


class Trunk(AdaptedTrunk, Hiera):
    """sam2's Hiera with room for adapters; the same weights under the same names."""


class RotaryAttention(RoPEAttention):
    """sam2's attention with rotary positions; the same weights under the same names.

    sam2 would make its codes on a GPU wherever there is one, even a full one, and for a model on the CPU.
    """

    def __init__(self, config: ModelConfig, *, to_memories: bool) -> None:
        kv_in_dim = _MEMORY_DIM if to_memories else None
        Attention.__init__(self, _DIM, num_heads=1, downsample_rate=1, dropout=0.1, kv_in_dim=kv_in_dim)
        self.compute_cis = partial(compute_axial_cis, dim=_DIM)
        if config.rotary_grid is not None:
            self.compute_cis = partial(memory_rotations, dim=_DIM, rotary_grid=config.rotary_grid)
        grid = config.image_size // _STRIDE
        self.freqs_cis = self.compute_cis(end_x=grid, end_y=grid)
        self.rope_k_repeat = to_memories


class PooledAttention(PooledKeys, RotaryAttention):
    """The same, to pooled memories."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, to_memories=True)
        pool, rotary_grid = config.memory.pool, config.rotary_grid
        self.compute_key_cis = partial(memory_rotations, dim=_DIM, pool=pool, rotary_grid=rotary_grid)


class PooledMemoryEncoder(PooledMemory, MemoryEncoder):
    """sam2's memory encoder with pooled output; the same weights under the same names."""


def build_network(config: ModelConfig) -> SAM2Base:
    """Build the network with random weights, on the CPU, in evaluation mode."""
    return SAM2Base(**network_arguments(config)).eval()


def network_arguments(config: ModelConfig) -> dict[str, object]:
    """The arguments of sam2's ``SAM2Base`` and ``SAM2VideoPredictor`` for this configuration.

    They hold freshly built modules: every call makes new ones. The values are those of the official YAML files and of
    ``build_sam2_video_predictor``'s inference settings.
    """
    is_21 = config.version == "2.1"
    return dict(
        image_encoder=_image_encoder(config),
        memory_attention=_memory_attention(config),
        memory_encoder=_memory_encoder(config),
        num_maskmem=7,
        image_size=config.image_size,
        backbone_stride=_STRIDE,
        sigmoid_scale_for_mem_enc=20.0,
        sigmoid_bias_for_mem_enc=-10.0,
        binarize_mask_from_pts_for_mem_enc=True,
        use_mask_input_as_output_without_sam=True,
        directly_add_no_mem_embed=True,
        no_obj_embed_spatial=is_21,
        use_high_res_features_in_sam=True,
        multimask_output_in_sam=True,
        iou_prediction_use_sigmoid=True,
        use_obj_ptrs_in_encoder=True,
        add_tpos_enc_to_obj_ptrs=is_21,
        proj_tpos_enc_in_obj_ptrs=is_21,
        use_signed_tpos_enc_to_obj_ptrs=is_21,
        only_obj_ptrs_in_the_past_for_eval=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        fixed_no_obj_ptr=True,
        multimask_output_for_tracking=True,
        use_multimask_token_for_obj_ptr=True,
        multimask_min_pt_num=0,
        multimask_max_pt_num=1,
        use_mlp_for_obj_ptr_proj=True,
        sam_mask_decoder_extra_args=dict(
            dynamic_multimask_via_stability=True,
            dynamic_multimask_stability_delta=0.05,
            dynamic_multimask_stability_thresh=0.98,
        ),
    )


def _image_encoder(config: ModelConfig) -> ImageEncoder:
    trunk = Trunk(
        embed_dim=config.embed_dim,
        num_heads=config.num_heads,
        stages=config.stages,
        global_att_blocks=config.global_att_blocks,
        window_spec=config.window_spec,
        window_pos_embed_bkg_spatial_size=config.window_pos_embed_bkg_spatial_size,
    )
    if config.adapter is not None:
        trunk.add_adapters(config.adapter)
    neck = FpnNeck(
        position_encoding=_sine(_DIM),
        d_model=_DIM,
        backbone_channel_list=list(config.trunk_channels),
        fpn_top_down_levels=[2, 3],
        fpn_interp_model="nearest",
    )
    return ImageEncoder(trunk=trunk, neck=neck, scalp=1)


def _memory_attention(config: ModelConfig) -> MemoryAttention:
    memory = config.memory
    layer = MemoryAttentionLayer(
        activation="relu",
        dim_feedforward=memory.feedforward,
        dropout=0.1,
        pos_enc_at_attn=False,
        self_attention=RotaryAttention(config, to_memories=False),
        d_model=_DIM,
        pos_enc_at_cross_attn_keys=True,
        pos_enc_at_cross_attn_queries=False,
        cross_attention=RotaryAttention(config, to_memories=True) if memory.pool == 1 else PooledAttention(config),
    )
    return MemoryAttention(d_model=_DIM, pos_enc_at_input=True, layer=layer, num_layers=memory.layers)


def _memory_encoder(config: ModelConfig) -> MemoryEncoder:
    block = CXBlock(dim=_DIM, kernel_size=7, padding=3, layer_scale_init_value=1e-6, use_dwconv=True)
    parts = dict(
        out_dim=_MEMORY_DIM,
        position_encoding=_sine(_MEMORY_DIM),
        mask_downsampler=MaskDownSampler(kernel_size=3, stride=2, padding=1),
        fuser=Fuser(block, num_layers=2),
    )
    if config.memory.pool == 1:
        return MemoryEncoder(**parts)
    encoder = PooledMemoryEncoder(**parts)
    encoder.pool = config.memory.pool
    return encoder


def _sine(dim: int) -> PositionEmbeddingSine:
    """Codes of positions, made when they are asked for: sam2 would fill a GPU with some that nobody reads."""
    return PositionEmbeddingSine(num_pos_feats=dim, warmup_cache=False)
