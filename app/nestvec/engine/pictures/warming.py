"""What the first picture of a process would wait for, done before: Pillow is imported, and has decoded once."""

from nestvec.engine.pictures.decoding import PictureBounds, decode_picture, has_pillow, read_header


def warm_up() -> None:
    """Import Pillow, and decode a picture of one pixel; takes a tenth of a second once, and nothing without Pillow."""
    if not has_pillow():
        return
    from nestvec.engine.pictures.images import picture_of_image
    from nestvec.engine.pictures.pillow import Image

    bounds = PictureBounds()
    data = picture_of_image(Image.new("RGB", (1, 1))).data
    read_header(data, bounds)
    decode_picture(data, bounds)
