"""A colour that stands for transparency, as in palettes and GIFs: white to image processors of transformers 5."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from PIL.Image import Image

WHITE: Final = (255, 255, 255, 255)


def on_white(image: "Image") -> "Image":
    """Lay an RGB picture on white where it has the colour that its file calls transparent.

    Source: `convert_to_rgb` of transformers 5.24's image_transforms.py, which its image processors begin with; 4.57's
    leave such colours as they are.
    """
    colour = image.info.get("transparency")
    if not isinstance(colour, tuple) or len(colour) != len(image.getbands()):
        return image
    from PIL import Image

    clear = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), clear).convert("RGB")
