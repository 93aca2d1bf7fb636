"""Ways of looking at a photo, by name; trashseg/tta.py shows a network what they show. No torch here."""

from dataclasses import dataclass

from trashseg.config import TtaConfig, ViewName, nearest_32


@dataclass(frozen=True)
class View:
    """One way of looking at a photo."""

    transform: ViewName = "identity"
    scale: float = 1.0

    @property
    def name(self) -> str:
        """Of its folder (trashseg/oof.py)."""
        return f"{self.transform}_{self.scale:g}"

    def side(self, image_size: int) -> int:
        """Pixels of the square that the network sees."""
        return nearest_32(self.scale * image_size)


PLAIN = View()


def views_of(config: TtaConfig) -> tuple[View, ...]:
    """Every transform at every scale."""
    return tuple(View(transform, scale) for scale in config.scales for transform in config.views)
