"""Why a photo is not looked at: one line, in the language of whoever sent it."""

from typing import Any

from trashseg.demo.guide import Text, read_guide
from trashseg.errors import TrashSegError

STATUS = {
    "too_large": 413,
    "too_many_pixels": 413,
    "not_a_photo": 415,
    "heic": 415,
    "damaged": 422,
    "busy": 503,
    "no_such_form": 406,
}
"""HTTP status of each reason; what is said of it is in guide.yaml."""


class RefusedError(TrashSegError):
    """`reason` is one of STATUS, `values` what its text speaks of; as a str it is English."""

    def __init__(self, reason: str, **values: Any) -> None:
        self.reason = reason
        self.status = STATUS[reason]
        self.text: Text = read_guide().refusals[reason].fill(**values)
        super().__init__(self.text.en)
