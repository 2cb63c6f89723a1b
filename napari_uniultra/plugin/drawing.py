"""What a user drew in place of what was drawn before, as a prompt. Plain data in, prompts out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from napari_uniultra.core.types import Prompt


@dataclass(frozen=True)
class Drawn:
    """What is drawn for an object on a frame: boxes, clicks and outlines; a mask that was painted has no drawing.

    Attributes
    ----------
    prompt : Prompt or None
        What the drawings ask for; None where there are none.
    had_outline : bool
        Whether the mask that was asked for before is an outline's, and so goes when that is no longer drawn.
    """

    prompt: Prompt | None
    had_outline: bool = False

    def then(self, later: Drawn) -> Drawn:
        """This and what was drawn afterwards as one."""
        return replace(later, had_outline=self.had_outline or later.had_outline)

    def over(self, known: Prompt | None) -> Prompt | None:
        """The prompt that there is to be in place of the known one: clicks refine what was painted."""
        if self.had_outline or known is None or known.mask is None or known.absent:
            return self.prompt
        if self.prompt is None:
            return None if known.mask_only else Prompt(mask=known.mask)
        is_refined = self.prompt.box is None and self.prompt.mask is None
        return replace(self.prompt, mask=known.mask) if is_refined else self.prompt
