"""Every format of masks: what was written is what others read, pixel by pixel, with spacing, names and frames."""

from __future__ import annotations

import json
from pathlib import Path

import av
import imagecodecs
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import yaml
from highdicom.seg import segread
from no_gdcm import run_without_gdcm
from PIL import Image, ImageSequence
from pycocotools.coco import COCO
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1
from segmentations import without_empty_frames
from skimage.draw import polygon2mask

from napari_uniultra.core.masks import Masks
from napari_uniultra.core.palette import colour_of
from napari_uniultra.core.types import Cine
from napari_uniultra.errors import ReadError, WriteError
from napari_uniultra.io.readers import read_cine
from napari_uniultra.io.readers.masks import read_masks
from napari_uniultra.io.writers import FORMAT_NAMES, FORMATS, format_of, write_masks
from napari_uniultra.io.writers.overlay import draw_masks, write_contact_sheet

SPACING = (0.3, 0.2)
NAMES = {1: "left ventricle", 3: "Füßchen \\ «心» " + "x" * 200, 4: "left ventricle", 9: "never there"}
SUFFIXES = {entry.name: entry.suffixes[0] for entry in FORMATS}
EXACT = ("tiff", "nrrd", "nifti", "coco", "png", "dicom")
FRAMES = 6


def labels(frames: int = FRAMES) -> np.ndarray:
    """Objects 1, 3 and 4; 3 comes and goes, and has a hole and two pieces."""
    masks = np.zeros((frames, 45, 61), np.uint8)
    for frame in range(frames):
        masks[frame, 10:30, 4 + frame : 24 + frame] = 1
        masks[frame, 32:44, 40:61] = 4
        if frame % 2:
            masks[frame, 2:20, 35:55] = 3
            masks[frame, 8:12, 40:45] = 0
            masks[frame, 40:44, 2:9] = 3
    return masks


def write_source(path: Path, frames: int = FRAMES, **changes: object) -> Path:
    """An ultrasound loop of DICOM, without a frame of reference, full of names."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID, dataset.StudyInstanceUID = "1.2.3.4", "1.2.3", "1.2"
    dataset.PatientName, dataset.PatientID, dataset.StudyDate = "CANARY^PATIENT", "CANARY-7", "20200102"
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 45, 61, frames
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.FrameTime, dataset.PixelSpacing = 40, list(SPACING)
    dataset.update(changes)
    dataset.PixelData = np.random.default_rng(0).integers(0, 255, (frames, 45, 61), dtype=np.uint8).tobytes() + b"\0"
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def masks(tmp_path: Path) -> Masks:
    """Masks of a loop that came from DICOM."""
    return Masks.of_cine(read_cine(write_source(tmp_path / "source.dcm")), labels(), NAMES)


def target(folder: Path, name: str) -> Path:
    return folder / "out" / f"masks{SUFFIXES[name]}"


@pytest.mark.parametrize("name", EXACT)
def test_round_trip(name: str, masks: Masks, tmp_path: Path) -> None:
    (written,) = write_masks(target(tmp_path, name), masks)
    back = read_masks(written)
    np.testing.assert_array_equal(back.labels, masks.labels)
    assert back.spacing_mm == pytest.approx(SPACING, rel=1e-6)
    if name != "dicom":  # times are in the loop that the segmentation refers to
        np.testing.assert_allclose(back.frame_times_s, masks.frame_times_s) if name != "nrrd" else None
    if name != "tiff":
        wanted = {key: NAMES[key] for key in (1, 3, 4)}
        if name == "dicom":
            wanted[3] = wanted[3].replace("\\", "/")
        assert {key: back.names[key] for key in wanted} == wanted
    assert [entry for entry in written.parent.iterdir() if entry.name.startswith(".")] == []


@pytest.mark.parametrize("name", [name for name in EXACT if name != "dicom"])
def test_nothing_is_invented_and_more_than_255_objects_fit(name: str, tmp_path: Path) -> None:
    many = np.arange(300).reshape(3, 10, 10)
    (written,) = write_masks(target(tmp_path, name), Masks(many))
    back = read_masks(written)
    np.testing.assert_array_equal(back.labels, many)
    assert back.spacing_mm is None
    assert back.frame_times_s is None


@pytest.mark.parametrize("name", [name for name in FORMAT_NAMES if name != "dicom"])
@pytest.mark.parametrize("frames", [1, FRAMES])
def test_no_objects(name: str, frames: int, tmp_path: Path) -> None:
    loop = Cine(np.zeros((frames, 45, 61), np.uint8))
    (written,) = write_masks(target(tmp_path, name), Masks.of_cine(loop, np.zeros((frames, 45, 61), np.uint8)))
    if name in EXACT:
        np.testing.assert_array_equal(read_masks(written).labels, 0)
    else:
        assert written.exists()


def test_nrrd_is_what_slicer_reads(masks: Masks, tmp_path: Path) -> None:
    write_masks(target(tmp_path, "nrrd"), masks)
    image = sitk.ReadImage(str(target(tmp_path, "nrrd")))
    assert image.GetSpacing() == pytest.approx((0.2, 0.3, 1))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), masks.labels)
    assert image.GetMetaData("Segmentation_ContainedRepresentationNames") == "Binary labelmap|"
    keys = ("ID", "Name", "LabelValue", "Layer", "Extent", "Color")
    values = [image.GetMetaData(f"Segment0_{key}") for key in keys]
    assert values[:5] == ["Segment_1", "left ventricle", "1", "0", f"4 {23 + FRAMES - 1} 10 29 0 {FRAMES - 1}"]
    assert [float(v) for v in values[5].split()] == pytest.approx([c / 255 for c in colour_of(1)], abs=1e-5)
    assert image.GetMetaData("Segment1_Name") == NAMES[3]
    assert image.GetMetaData("Segment2_Name") == "left ventricle"
    assert image.GetMetaData("Segment3_Extent") == "0 -1 0 -1 0 -1"


def test_slicers_sequences_and_layers(tmp_path: Path) -> None:
    """Where frames are the fastest axis, and where layers of segments that overlap are."""
    head = "NRRD0004\ntype: uint8\ndimension: 4\nsizes: 3 4 2 1\nkinds: list domain domain domain\nencoding: raw\n"
    numbers = bytes(range(24))  # of pixel (row, column) and frame: 12 row + 3 column + frame
    (tmp_path / "a.seq.nrrd").write_bytes(f"{head}\n".encode() + numbers)
    expected = [[[12 * y + 3 * x + t for x in range(4)] for y in range(2)] for t in range(3)]
    np.testing.assert_array_equal(read_masks(tmp_path / "a.seq.nrrd").labels, expected)
    layers = "".join(f"Segment{number}_Layer:={number}\n" for number in range(3))
    (tmp_path / "a.seg.nrrd").write_bytes(f"{head}{layers}\n".encode() + numbers)
    with pytest.raises(ReadError, match="several layers"):
        read_masks(tmp_path / "a.seg.nrrd")


def test_nifti_as_nibabel_and_itk_see_it(masks: Masks, tmp_path: Path) -> None:
    for suffix in (".nii", ".nii.gz"):
        path = tmp_path / f"m{suffix}"
        write_masks(path, masks)
        image = nibabel.load(path)
        assert image.shape == (61, 45, 1, FRAMES)
        assert image.header.get_zooms() == pytest.approx((0.2, 0.3, 1, 0.04))
        assert image.header.get_xyzt_units() == ("mm", "sec")
        np.testing.assert_array_equal(np.asarray(image.dataobj)[:, :, 0].T, masks.labels)
        itk = sitk.ReadImage(str(path))
        assert np.allclose(itk.GetDirection()[:6], (1, 0, 0, 0, 0, 1))  # x to the right, y down


def test_dicom_as_highdicom_reads_it(masks: Masks, tmp_path: Path) -> None:
    write_masks(target(tmp_path, "dicom"), masks)
    segmentation = segread(target(tmp_path, "dicom"))
    assert "FrameOfReferenceUID" not in segmentation
    assert [segmentation.get_segment_description(n).segment_label for n in range(1, 5)][::3] == [
        "left ventricle",
        "never there",
    ]
    stack = segmentation.get_pixels_by_source_frame(
        source_sop_instance_uid="1.2.3.4",
        source_frame_numbers=list(range(1, FRAMES + 1)),
        assert_missing_frames_are_empty=True,
    )
    for segment, object_id in enumerate(masks.ids):
        np.testing.assert_array_equal(stack[..., segment], masks.labels == object_id)
    (third,) = segmentation.get_pixels_by_source_frame(
        "1.2.3.4", [3], assert_missing_frames_are_empty=True, combine_segments=True
    )
    numbers = {0: 0, **{object_id: number for number, object_id in enumerate(masks.ids, start=1)}}
    np.testing.assert_array_equal(third, np.vectorize(numbers.get)(masks.labels[2]))
    assert segmentation.get_source_image_uids() == [("1.2", "1.2.3", "1.2.3.4")]
    measures = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert list(measures.PixelSpacing) == list(SPACING)


@pytest.mark.parametrize("annotated", [[0], [1, 2]])
def test_dicom_says_how_long_the_loop_is(annotated: list[int], tmp_path: Path) -> None:
    stack = np.zeros((4, 45, 61), np.uint8)
    stack[annotated, 10:20, 30:50] = 7
    stack[annotated[0], 30:40, 30:50] = 9
    (written,) = write_masks(
        tmp_path / "seg.dcm", Masks.of_cine(read_cine(write_source(tmp_path / "source.dcm", frames=4)), stack)
    )
    np.testing.assert_array_equal(read_masks(written).labels, stack)
    segmentation = segread(written)
    frames = [int(groups.FrameContentSequence[0].InStackPositionNumber) for groups in
              segmentation.PerFrameFunctionalGroupsSequence]  # fmt: skip
    assert frames == [*(frame + 1 for frame in annotated), 4, annotated[0] + 1]
    back = segmentation.get_pixels_by_source_frame("1.2.3.4", [1, 2, 3, 4], assert_missing_frames_are_empty=True)
    np.testing.assert_array_equal(back, np.stack([stack == 7, stack == 9], axis=-1))
    without_empty_frames(written)
    assert len(read_masks(written)) == annotated[-1] + 1
    np.testing.assert_array_equal(read_masks(written, frames=4).labels, stack)
    assert len(read_masks(written, frames=1)) == annotated[-1] + 1  # of a longer loop: nothing is cut off


@pytest.mark.parametrize(("tag", "number"), [("frame", 0), ("frame", 2**31 - 1), ("segment", 99), ("frames", 3)])
def test_damaged_dicom_segmentations_are_refused(tag: str, number: int, masks: Masks, tmp_path: Path) -> None:
    (written,) = write_masks(tmp_path / "seg.dcm", masks)
    dataset = pydicom.dcmread(written)
    groups = dataset.PerFrameFunctionalGroupsSequence[0]
    if tag == "frame":
        groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber = number
    elif tag == "segment":
        groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber = number
    else:
        dataset.NumberOfFrames = number
    dataset.save_as(written)
    with pytest.raises(ReadError, match=r"seg\.dcm"):
        read_masks(written)


def test_gdcm_is_not_needed_for_a_packed_segmentation(masks: Masks, tmp_path: Path) -> None:
    """As fractions of 8 bits in JPEG without loss, which no other decoder of pydicom reads here."""
    (written,) = write_masks(tmp_path / "seg.dcm", masks)
    dataset = pydicom.dcmread(written)
    frames = [imagecodecs.ljpeg_encode(frame * 255) for frame in dataset.pixel_array]
    dataset.SegmentationType, dataset.SegmentationFractionalType = "FRACTIONAL", "OCCUPANCY"
    dataset.MaximumFractionalValue, dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 255, 8, 8, 7
    dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(written)
    code = (
        "import numpy; from napari_uniultra.io.readers.masks import read_masks\n"
        "numpy.save(sys.argv[2], read_masks(sys.argv[1]).labels)\n"
    )
    run_without_gdcm(code, written, tmp_path / "back.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "back.npy"), masks.labels)


def test_dicom_of_a_still_is_one_frame_of_any_loop(tmp_path: Path) -> None:
    source = pydicom.dcmread(write_source(tmp_path / "source.dcm", frames=1))
    del source.NumberOfFrames
    source.save_as(tmp_path / "source.dcm")
    (written,) = write_masks(tmp_path / "seg.dcm", Masks.of_cine(read_cine(tmp_path / "source.dcm"), labels(1)))
    np.testing.assert_array_equal(read_masks(written, frames=5).labels, labels(1))


def test_dicom_of_real_loops(shared_data: Path, tmp_path: Path) -> None:
    for file in sorted((shared_data / "dicom").iterdir()):
        cine = read_cine(file)
        stack = np.zeros((len(cine), *cine.shape_hw), np.uint8)
        for frame in range(len(cine)):
            stack[frame, 20 + frame : 90, 30:90] = 1 + frame % 2
        masks = Masks.of_cine(cine, stack)
        (written,) = write_masks(tmp_path / f"{file.stem}.dcm", masks)
        np.testing.assert_array_equal(read_masks(written).labels, stack)
        uid = str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID)
        found = segread(written).get_source_image_uids()
        assert [entry[2] for entry in found] == [uid]


def test_dicom_needs_its_source(masks: Masks, tmp_path: Path) -> None:
    for cine in (None, Cine(np.zeros(masks.labels.shape, np.uint8))):
        with pytest.raises(WriteError, match="loop"):
            write_masks(tmp_path / "seg.dcm", Masks(masks.labels, cine=cine))
    with pytest.raises(WriteError, match="no objects"):
        write_masks(tmp_path / "seg.dcm", Masks.of_cine(masks.cine, np.zeros_like(masks.labels)))
    write_source(tmp_path / "source.dcm", frames=2)
    with pytest.raises(WriteError, match=r"source\.dcm"):
        write_masks(tmp_path / "seg.dcm", masks)
    (tmp_path / "source.dcm").unlink()
    with pytest.raises(WriteError, match="cannot be read again"):
        write_masks(tmp_path / "seg.dcm", masks)
    assert not (tmp_path / "seg.dcm").exists()


def test_coco_as_pycocotools_reads_it(masks: Masks, tmp_path: Path) -> None:
    write_masks(target(tmp_path, "coco"), masks)
    coco = COCO(str(target(tmp_path, "coco")))
    back = np.zeros_like(masks.labels)
    for annotation in coco.loadAnns(coco.getAnnIds()):
        frame = coco.loadImgs(annotation["image_id"])[0]["frame"]
        mask = coco.annToMask(annotation).astype(bool)
        back[frame][mask] = annotation["object_id"]
        assert annotation["area"] == mask.sum()
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        assert annotation["bbox"] == [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1]
    np.testing.assert_array_equal(back, masks.labels)
    assert [entry["name"] for entry in coco.loadCats(coco.getCatIds())] == list(dict.fromkeys(NAMES.values()))


def test_yolo_polygons_cover_the_masks(masks: Masks, tmp_path: Path) -> None:
    (folder,) = write_masks(target(tmp_path, "yolo"), masks)
    assert folder == tmp_path / "out" / "masks"
    data = yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))
    classes = dict(data["names"])
    assert list(classes.values()) == list(dict.fromkeys(NAMES.values()))
    assert json.loads((folder / "meta.json").read_text(encoding="utf-8"))["spacing_mm"] == list(SPACING)
    files = sorted((folder / "labels").iterdir())
    assert [file.name for file in files] == [f"frame_{frame:06d}.txt" for frame in range(FRAMES)]
    for frame, file in enumerate(files):
        drawn = {number: np.zeros(masks.shape_hw, bool) for number in classes}
        for line in file.read_text().splitlines():
            number, *shares = line.split()
            corners = np.array(shares, float).reshape(-1, 2) * (61, 45) - 0.5
            drawn[int(number)] |= polygon2mask(masks.shape_hw, corners[:, ::-1])
        for number, name in classes.items():
            truth = np.isin(masks.labels[frame], [key for key, value in NAMES.items() if value == name])
            if name == NAMES[3] and frame % 2:
                truth[8:12, 40:45] = True  # holes are filled
            overlap = (truth & drawn[number]).sum() / max(1, (truth | drawn[number]).sum())
            assert overlap > 0.97 or (not truth.any() and not drawn[number].any())


def test_png_shows_the_objects_in_their_colours(masks: Masks, tmp_path: Path) -> None:
    (folder,) = write_masks(target(tmp_path, "png"), masks)
    files = sorted(folder.glob("*.png"))
    assert [file.name for file in files] == [f"frame_{frame:06d}.png" for frame in range(FRAMES)]
    with Image.open(files[1]) as image:
        colours = np.asarray(image.convert("RGB"))
    assert tuple(colours[5, 37]) == colour_of(3)
    loop = read_cine(folder)
    assert loop.spacing_mm == SPACING
    np.testing.assert_allclose(loop.frame_times_s, masks.frame_times_s)
    with pytest.raises(WriteError, match="exists already"):
        write_masks(target(tmp_path, "png"), masks)


def test_a_still_is_one_png(tmp_path: Path) -> None:
    (written,) = write_masks(tmp_path / "still.png", Masks(labels(1), {1: "lumen"}, SPACING))
    assert written == tmp_path / "still.png"
    back = read_masks(written)
    np.testing.assert_array_equal(back.labels, labels(1))
    assert (back.spacing_mm, back.names[1]) == (SPACING, "lumen")


def test_the_json_beside_a_still_is_replaced_only_if_it_is_ours(tmp_path: Path) -> None:
    still, beside = Masks(labels(1), {1: "lumen"}, SPACING), tmp_path / "still.json"
    contents = (
        '{"spacing_mm": [0.5, 0.4]}',  # of still.jpg
        '{"spacing_mm": [0.5, 0.4], "frame_times_s": [0.0, 0.1]}',  # of still.mp4
        '{"fps": 25, "objects": {"1": "lumen"}}',
        '{"objects": [{"id": 1, "frames": {"0": {"box": [1, 2, 3, 4]}}}]}',  # prompts
        '{"objects": {"1": {"polygon": []}}}',
        '{"objects": {"lumen": "1"}}',
        '["objects"]',
        "no JSON",
        "",
    )
    for content in contents:
        beside.write_text(content)
        with pytest.raises(WriteError, match=r"still\.json, which exists and holds something else"):
            write_masks(tmp_path / "still.png", still)
        assert [path.name for path in tmp_path.iterdir()] == ["still.json"]
        assert beside.read_text() == content
    beside.unlink()
    write_masks(tmp_path / "still.png", Masks(np.zeros((1, 45, 61), np.uint8)))
    write_masks(tmp_path / "still.png", Masks(labels(1), {1: "wall"}, SPACING, [0.0]))
    write_masks(tmp_path / "still.png", still)
    assert read_masks(tmp_path / "still.png").names[1] == "lumen"


@pytest.mark.parametrize(
    "content", ['{"spacing_mm": [0.5, 0.4], "fps": 25}', '{"objects": {"1": "lumen"}}', '{"images": []}', "[]", ""]
)
def test_coco_replaces_only_its_own_json(content: str, masks: Masks, tmp_path: Path) -> None:
    (tmp_path / "loop.json").write_text(content)
    with pytest.raises(WriteError, match=r"loop\.json, which exists and holds something else"):
        write_masks(tmp_path / "loop.json", masks)
    assert (tmp_path / "loop.json").read_text() == content
    for names in ({1: "lumen"}, {1: "wall"}):
        write_masks(tmp_path / "m.json", Masks(masks.labels, names))
    assert read_masks(tmp_path / "m.json").names[1] == "wall"


def test_the_json_beside_a_still_does_not_spoil_a_loop_of_its_name(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 45, 61), np.uint8))
    write_masks(tmp_path / "a.png", Masks(labels(1), {1: "lumen"}, SPACING, [0.0]))
    cine = read_cine(tmp_path / "a.npy")
    assert len(cine) == 3
    assert cine.frame_times_s is None


def test_gif_has_every_frame_at_its_time(tmp_path: Path) -> None:
    times = np.array([0, 0.04, 0.10, 0.20, 0.3, 0.4])
    loop = Cine(np.full((FRAMES, 45, 61), 70, np.uint8), frame_times_s=times)
    write_masks(tmp_path / "overlay.gif", Masks.of_cine(loop, labels()), patient_data=True)
    with Image.open(tmp_path / "overlay.gif") as image:
        assert image.n_frames == FRAMES
        durations, pictures = [], []
        for picture in ImageSequence.Iterator(image):
            durations.append(picture.info["duration"])
            pictures.append(np.asarray(picture.convert("RGB")).astype(int))
    assert durations == [40, 60, 100, 100, 100, 80]
    for frame, picture in enumerate(pictures):
        np.testing.assert_allclose(picture, draw_masks(loop.frame(frame), labels()[frame]), atol=12)


@pytest.mark.parametrize(
    ("times", "shown", "durations"),
    [
        (np.arange(6) / 50, [0, 1, 2, 3, 4, 5], [20] * 6),
        (np.arange(6) / 60, [0, 1, 3, 4], [20, 30, 20, 30]),  # at 0, 2, 5, 7 of 10 hundredths
        (np.arange(6) / 100, [0, 2, 4], [20] * 3),
        (np.arange(6) / 200, [0, 3], [20] * 2),  # at 0 and 2 of 3; the last one stays for as long as any must
        ([0, 0.005, 0.01, 0.5, 0.505, 0.75], [0, 3, 5], [500, 250, 150]),  # 0.15 s is the mean step
        (np.arange(6) / 1000, [0], [None]),  # a still
    ],
)
def test_gif_of_a_fast_loop_is_as_long_as_the_loop(
    times: list[float], shown: list[int], durations: list[int], tmp_path: Path
) -> None:
    frames = np.repeat(np.arange(10, 250, 40, np.uint8), 45 * 61).reshape(FRAMES, 45, 61)
    loop = Cine(frames, frame_times_s=times)
    write_masks(tmp_path / "overlay.gif", Masks.of_cine(loop, np.zeros_like(frames)), patient_data=True)
    with Image.open(tmp_path / "overlay.gif") as image:
        pictures = ImageSequence.Iterator(image)
        found = [(np.asarray(picture.convert("L"))[0, 0], picture.info.get("duration")) for picture in pictures]
    assert [grey for grey, _ in found] == [10 + 40 * frame for frame in shown]
    assert [duration for _, duration in found] == durations


@pytest.mark.parametrize("name", ["mp4", "gif"])
def test_what_is_written_beside_the_scan_area_is_not_shown(name: str, tmp_path: Path) -> None:
    frames = np.full((3, 64, 64), 200, np.uint8)
    sector = np.zeros((64, 64), bool)
    sector[16:, :] = True
    masks = Masks.of_cine(Cine(frames, sector=sector), np.zeros_like(frames))
    for patient_data, expected in ((False, 0), (True, 200)):
        path = tmp_path / f"{patient_data}{SUFFIXES[name]}"
        write_masks(path, masks, patient_data=patient_data)
        if name == "gif":
            with Image.open(path) as image:
                picture = np.asarray(image.convert("L"))
        else:
            with av.open(str(path)) as container:
                picture = next(container.decode(video=0)).to_ndarray(format="gray")
        assert abs(int(picture[4, 30]) - expected) < 20
        assert abs(int(picture[40, 30]) - 200) < 20


def test_without_tags_the_scan_area_is_looked_for(tmp_path: Path) -> None:
    frames = np.zeros((8, 120, 160), np.uint8)
    frames[:, 20:, 30:130] = np.random.default_rng(0).integers(40, 200, (8, 100, 100))
    frames[:, 4:12, 4:100:3] = 255  # what stands still beside it
    masks = Masks.of_cine(Cine(frames), np.zeros_like(frames))
    write_masks(tmp_path / "overlay.gif", masks)
    write_contact_sheet(tmp_path / "sheet.png", masks.cine, masks.labels, n=1)
    for path in (tmp_path / "overlay.gif", tmp_path / "sheet.png"):
        with Image.open(path) as image:
            picture = np.asarray(image.convert("L"))
        assert not picture[2:14, 40:102].any()  # beside the frame's number on the sheet
        assert picture[30:110, 40:120].mean() > 80


def test_no_patient_in_any_output_unless_asked(masks: Masks, tmp_path: Path) -> None:
    source = tmp_path / "CANARY.dcm"
    cine = read_cine((tmp_path / "source.dcm").rename(source))
    masks = Masks.of_cine(cine, masks.labels, {1: "lumen"})
    for name in FORMAT_NAMES:
        write_masks(target(tmp_path / name, name), masks)
        for path in (tmp_path / name).rglob("*"):
            assert "CANARY" not in path.name
            if path.is_file():
                content = path.read_bytes()
                assert b"CANARY" not in content
                assert b"20200102" not in content
    write_masks(tmp_path / "asked.dcm", masks, patient_data=True)
    assert pydicom.dcmread(tmp_path / "asked.dcm").PatientName == "CANARY^PATIENT"


def test_formats_by_suffix_and_name(tmp_path: Path) -> None:
    assert [format_of(f"a/b.{SUFFIXES[name].upper()}").name for name in FORMAT_NAMES] == list(FORMAT_NAMES)
    assert format_of("x.nrrd").name == "nrrd"
    assert format_of("x.tif", "coco").name == "coco"
    for path, name in (("x.xyz", None), ("x", None), ("x.tif", "xyz")):
        with pytest.raises(WriteError, match="cannot be saved"):
            format_of(path, name)
    with pytest.raises(WriteError, match="needs the loop"):
        write_masks(tmp_path / "a.mp4", Masks(labels()))


def test_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(WriteError, match="do not fit"):
        Masks.of_cine(Cine(np.zeros((2, 9, 9), np.uint8)), np.zeros((2, 9, 8), np.uint8))
    with pytest.raises(WriteError, match="came with"):
        Masks(np.zeros((2, 9, 9), np.uint8), frame_times_s=[0, 1, 2])


def test_what_holds_no_masks_is_not_read(tmp_path: Path, masks: Masks) -> None:
    (tmp_path / "a.json").write_text("[1, 2]")
    (tmp_path / "b.json").write_text("{")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "c.png")
    for path in (tmp_path / "a.json", tmp_path / "b.json", tmp_path / "c.png", tmp_path / "source.dcm"):
        with pytest.raises(ReadError, match=path.name):
            read_masks(path)
