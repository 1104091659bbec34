# fmt: off
"""What each model takes. Made from a PixelDojo catalogue by pixeldojo-types --python; make it again instead."""

from typing import Literal, NotRequired, TypedDict


class DojoMiniInput(TypedDict):
    """What `dojo-mini` takes. Dojo Mini: A tiny open model that runs on any CPU in well under a second. It
    draws one emoji-like 3D object, for icons and stickers, on a plain background. Its pictures are
    simple and soft; it makes no photos, no scenes and no text."""

    #: One object in a few English words or as an emoji. Add "on a blue background" for a coloured ground.
    #: About the first dozen words are read.
    prompt: str

    #: Width to height. 1:1 is 512×512 pixels, 4:3 640×480, 3:2 672×448, 16:9 768×432; the upright ones are
    #: the same turned. The object keeps its shape: wider and taller pictures have more background. By default
    #: "1:1".
    aspect_ratio: NotRequired[Literal["1:1", "4:3", "3:4", "3:2", "2:3", "16:9", "9:16"]]

    #: How many pictures, each from a seed of its own: picture i uses seed + i. From 1 to 4. By default 1.
    num_outputs: NotRequired[int]

    #: The same input with the same seed gives the same picture. Random when absent. From 0 to 4294967295.
    seed: NotRequired[int]

    #: Sampling steps. More take longer and change little above 24. From 4 to 50. By default 16.
    steps: NotRequired[int]

    #: How strictly the picture follows the prompt. Low values are softer and more varied. From 1 to 6. By
    #: default 4.
    guidance: NotRequired[float]

    #: The file format: PNG keeps every pixel, WebP and JPEG are smaller. None has transparency. By default
    #: "png".
    format: NotRequired[Literal["png", "webp", "jpeg"]]

    #: Where to send the result when the job ends.
    webhook_url: NotRequired[str]

    #: What the webhook hears of: the job's end, completed or failed, unless told otherwise.
    webhook_events_filter: NotRequired[list[Literal["start", "progress", "completed", "failed"]]]

    #: Up to 16 names of your own with texts, numbers or booleans. Echoed in the job and its webhook; lists
    #: can be filtered by it.
    metadata: NotRequired[dict[str, str | float | bool]]

    #: Which of your own waiting jobs goes first: the highest. Other accounts' turns stay theirs. From -10 to
    #: 10.
    priority: NotRequired[int]

    #: Refuse the job when it would cost more credits than this. From 0.
    max_credit_cost: NotRequired[float]


class DojoUpscaleInput(TypedDict):
    """What `dojo-upscale` takes. Dojo Upscale: Makes a picture twice or four times as large with a tiny
    network, in seconds on any CPU. Edges and flat colours of icons, stickers and drawings stay sharp,
    and transparency is kept. It invents no detail: photos gain little over plain enlargement."""

    #: The picture to enlarge: an https URL or a data URI of a PNG, JPEG or WebP file, of any colour mode and
    #: any size up to 2048 pixels a side at scale 2 and 1024 at scale 4. Of an animation the first frame is
    #: taken.
    image_url: str

    #: How many times as wide and as high the result is. By default 2.
    scale: NotRequired[Literal[2, 4]]

    #: The file format: PNG keeps every pixel; PNG and WebP keep transparency; JPEG puts transparent pictures
    #: on white. By default "png".
    format: NotRequired[Literal["png", "webp", "jpeg"]]

    #: Where to send the result when the job ends.
    webhook_url: NotRequired[str]

    #: What the webhook hears of: the job's end, completed or failed, unless told otherwise.
    webhook_events_filter: NotRequired[list[Literal["start", "progress", "completed", "failed"]]]

    #: Up to 16 names of your own with texts, numbers or booleans. Echoed in the job and its webhook; lists
    #: can be filtered by it.
    metadata: NotRequired[dict[str, str | float | bool]]

    #: Which of your own waiting jobs goes first: the highest. Other accounts' turns stay theirs. From -10 to
    #: 10.
    priority: NotRequired[int]

    #: Refuse the job when it would cost more credits than this. From 0.
    max_credit_cost: NotRequired[float]
