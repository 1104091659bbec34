// Made from a PixelDojo catalogue by pixeldojo-types. Make it again instead of editing it.

/**
 * What `dojo-mini` takes. Dojo Mini: A tiny open model that runs on any CPU in about a second. It draws
 * icons, stickers, emoji-like objects and small scenes in a clean 3D style, with real transparency, and
 * repaints given pictures. It makes no photos and no text.
 */
export interface DojoMiniInput {
  /**
   * What to draw, in a few plain English words or as emoji: an object, its colour, two or three things and
   * where they stand, a place such as "on the beach". About the first twenty words are read.
   */
  prompt: string;
  /**
   * Width to height; the picture is composed for it. When absent: 1:1, or with image_url the given picture's
   * own shape. A given picture of another shape is cropped at its middle; one with transparency gets more of
   * it instead.
   */
  aspect_ratio?: "1:1" | "4:3" | "3:4" | "3:2" | "2:3" | "16:9" | "9:16";
  /**
   * The longer side in pixels. When absent: 512, or with image_url the given picture's own longer side, at
   * least 256 and at most 1024. The model draws at 256 and a learned upscaler enlarges: 256 is quickest, 1024
   * takes about half as long again as 512. From 64 to 1024.
   */
  size?: number;
  /**
   * What lies behind: transparent (a true alpha channel, in png or webp), or a colour as a CSS name or
   * #rrggbb; it replaces a background in the prompt. auto takes the one that the prompt names ("on a blue
   * background", "on a gradient from pink to purple", "on a transparent background") and else white; with
   * image_url the given picture's own. By default "auto".
   */
  background?: string;
  /**
   * A picture to start from, painted anew as the prompt says: an https URL or a data URI of a PNG, JPEG or
   * WebP file of any colour mode, up to 16 million pixels (a JPEG twice that), transparency included. Of an
   * animation the first frame is taken.
   */
  image_url?: string;
  /**
   * How far from image_url the result may go: low values keep shapes and colours, 1 keeps nothing. When
   * absent: 0.7, or 1 with mask_url. Without image_url it changes nothing. From 0.1 to 1.
   */
  strength?: number;
  /**
   * Which part of image_url to paint anew: white is repainted, black comes back untouched: pixel for pixel in
   * a png of the same size. A picture of the same shape; another size is scaled to fit. Transparent parts
   * count as black.
   */
  mask_url?: string;
  /** How many pictures, each from a seed of its own: picture i uses seed + i. From 1 to 4. By default 1. */
  num_outputs?: number;
  /** The same input with the same seed gives the same picture. Random when absent. From 0 to 4294967295. */
  seed?: number;
  /** Sampling steps. More take longer and change little. From 4 to 50. By default 12. */
  steps?: number;
  /**
   * How strictly the picture follows the prompt. Low values are softer and more varied. From 1 to 6. By
   * default 4.
   */
  guidance?: number;
  /**
   * The file format: PNG keeps every pixel, WebP and JPEG are smaller. JPEG has no transparency: a given
   * picture that has some is put on white, and background transparent is refused. By default "png".
   */
  format?: "png" | "webp" | "jpeg";
  /** Where to send the result when the job ends. */
  webhook_url?: string;
  /** What the webhook hears of: the job's end, completed or failed, unless told otherwise. */
  webhook_events_filter?: Array<"start" | "progress" | "completed" | "failed">;
  /**
   * Up to 16 names of your own with texts, numbers or booleans. Echoed in the job and its webhook; lists can
   * be filtered by it.
   */
  metadata?: Record<string, string | number | boolean>;
  /**
   * Which of your own waiting jobs goes first: the highest. Other accounts' turns stay theirs. From -10 to
   * 10.
   */
  priority?: number;
  /** Refuse the job when it would cost more credits than this. From 0. */
  max_credit_cost?: number;
}

/**
 * What `dojo-motion` takes. Dojo Motion: A short clip that loops without a seam, from a prompt or from a
 * picture of yours, on any CPU. A small network that learnt how animated emoji sway, bounce and turn says how
 * the picture moves, and the picture is pulled along. It warps one picture: nothing new comes into view.
 */
export interface DojoMotionInput {
  /**
   * What to show, in a few plain English words or as emoji; dojo-mini's network paints it. With image_url it
   * only says what the picture shows, which helps to find a fitting motion. One of prompt and image_url is
   * needed.
   */
  prompt?: string;
  /**
   * The first frame: an https URL or a data URI of a PNG, JPEG or WebP file of any colour mode, up to 16
   * million pixels, transparency included. Of an animation the first frame is taken. It is scaled, never
   * stretched: see aspect_ratio.
   */
  image_url?: string;
  /**
   * Seconds, in halves. Up to 3 seconds the clip is one loop, so that a shorter one moves faster; from 3.5
   * seconds on it is one loop or two, by the seed. From 1 to 4. By default 2.
   */
  duration?: number;
  /**
   * How smooth it is. Where duration × fps is no whole number, one more frame is made and all are spread
   * evenly. From 16 to 24. By default 24.
   */
  fps?: number;
  /**
   * Width to height. When absent: 1:1, or with image_url the picture's own shape, at most 16:9 and at least
   * 9:16. A given picture of another shape gets more of its ground on two sides where it stands on
   * transparency or on one plain colour; any other is cropped at its middle.
   */
  aspect_ratio?: "1:1" | "4:3" | "3:4" | "3:2" | "2:3" | "16:9" | "9:16";
  /**
   * The side of the square in pixels; other shapes have about as many pixels. 256: 256×256, 288×216, 312×208,
   * 320×180 and upright. 512 is twice that each way, and takes about four times as long. By default 512.
   */
  resolution?: 256 | 512;
  /** How far it moves. What would leave the frame moves less. From 0.2 to 1.5. By default 1. */
  strength?: number;
  /**
   * What lies behind what is transparent: transparent (in webp), or a colour as a CSS name or #rrggbb; it
   * replaces a background in the prompt. auto takes the one that the prompt names ("on a blue background")
   * and else white; with image_url, transparency stays in webp and is white in mp4. By default "auto".
   */
  background?: string;
  /**
   * mp4 is H.264, which every browser plays in a video element; webp is an animated picture for an img
   * element, which loops for ever and keeps transparency. By default "mp4".
   */
  format?: "mp4" | "webp";
  /**
   * The same input with the same seed gives the same clip. It chooses the painted picture and one of the
   * motions that fit. Random when absent. From 0 to 4294967295.
   */
  seed?: number;
  /** Where to send the result when the job ends. */
  webhook_url?: string;
  /** What the webhook hears of: the job's end, completed or failed, unless told otherwise. */
  webhook_events_filter?: Array<"start" | "progress" | "completed" | "failed">;
  /**
   * Up to 16 names of your own with texts, numbers or booleans. Echoed in the job and its webhook; lists can
   * be filtered by it.
   */
  metadata?: Record<string, string | number | boolean>;
  /**
   * Which of your own waiting jobs goes first: the highest. Other accounts' turns stay theirs. From -10 to
   * 10.
   */
  priority?: number;
  /** Refuse the job when it would cost more credits than this. From 0. */
  max_credit_cost?: number;
}

/**
 * What `dojo-upscale` takes. Dojo Upscale: Makes a picture twice or four times as large with a tiny network,
 * in seconds on any CPU. Edges and flat colours of icons, stickers and drawings stay sharp, and transparency
 * is kept. It invents no detail: photos gain little over plain enlargement.
 */
export interface DojoUpscaleInput {
  /**
   * The picture to enlarge: an https URL or a data URI of a PNG, JPEG or WebP file, of any colour mode and
   * any size up to 2048 pixels a side at scale 2 and 1024 at scale 4. Of an animation the first frame is
   * taken.
   */
  image_url: string;
  /** How many times as wide and as high the result is. By default 2. */
  scale?: 2 | 4;
  /**
   * The file format: PNG keeps every pixel; PNG and WebP keep transparency; JPEG puts transparent pictures on
   * white. By default "png".
   */
  format?: "png" | "webp" | "jpeg";
  /** Where to send the result when the job ends. */
  webhook_url?: string;
  /** What the webhook hears of: the job's end, completed or failed, unless told otherwise. */
  webhook_events_filter?: Array<"start" | "progress" | "completed" | "failed">;
  /**
   * Up to 16 names of your own with texts, numbers or booleans. Echoed in the job and its webhook; lists can
   * be filtered by it.
   */
  metadata?: Record<string, string | number | boolean>;
  /**
   * Which of your own waiting jobs goes first: the highest. Other accounts' turns stay theirs. From -10 to
   * 10.
   */
  priority?: number;
  /** Refuse the job when it would cost more credits than this. From 0. */
  max_credit_cost?: number;
}

/** The input types by model id. */
export interface ModelInputs {
  "dojo-mini": DojoMiniInput;
  "dojo-motion": DojoMotionInput;
  "dojo-upscale": DojoUpscaleInput;
}
