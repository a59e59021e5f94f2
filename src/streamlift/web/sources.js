// @ts-check
/** What can be published from a browser: camera, screen or a file, as a MediaStream. */

/**
 * @typedef {object} Source
 * @property {MediaStream} media
 * @property {string} contentHint
 * @property {() => void} stop gives camera, screen and file back
 */

const SQUARE = 512;
const LONGEST_SIDE = 1280;
const FALLBACK_FPS = 25;

/** Why a source could not be opened, said so that the user can act. */
export class SourceError extends Error {}

/** @param {{square: boolean, sound: boolean}} options @returns {Promise<Source>} */
export async function openCamera({ square, sound }) {
  const media = await ask("camera", () =>
    devices().getUserMedia({
      video: { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 25 } },
      audio: sound,
    }),
  );
  return square ? throughSquare(media, "motion") : direct(media, "motion");
}

/** @param {{square: boolean, sound: boolean}} options @returns {Promise<Source>} */
export async function openScreen({ square, sound }) {
  const media = await ask("screen", () =>
    devices().getDisplayMedia({
      video: { width: { max: LONGEST_SIDE }, height: { max: LONGEST_SIDE }, frameRate: 25 },
      audio: sound,
    }),
  );
  return square ? throughSquare(media, "detail") : direct(media, "detail");
}

/**
 * Play a file in a loop through a canvas, at the file's own rate.
 * @param {File | undefined} file
 * @param {{square: boolean}} options
 * @returns {Promise<Source>}
 */
export async function openFile(file, { square }) {
  if (!file) throw new SourceError("Choose a video file first.");
  const url = URL.createObjectURL(file);
  try {
    const video = await playing({ src: url, loop: true });
    const painted = paint(video, square);
    return {
      media: painted.media,
      contentHint: "motion",
      stop() {
        painted.stop();
        video.removeAttribute("src");
        video.load();
        URL.revokeObjectURL(url);
      },
    };
  } catch (error) {
    URL.revokeObjectURL(url);
    throw new SourceError(`This browser cannot play “${file.name}”. Try MP4 (H.264) or WebM.`, {
      cause: error,
    });
  }
}

/** @returns {MediaDevices} */
function devices() {
  if (navigator.mediaDevices) return navigator.mediaDevices;
  throw new SourceError(
    "Browsers give camera and screen to secure pages only: open this page by HTTPS, or as " +
      "http://localhost on the machine itself. A file can be published from here.",
  );
}

/**
 * @param {"camera" | "screen"} what
 * @param {() => Promise<MediaStream>} open
 */
async function ask(what, open) {
  try {
    return await open();
  } catch (error) {
    if (error instanceof SourceError) throw error;
    throw new SourceError(explainDenial(what, error), { cause: error });
  }
}

/** @param {"camera" | "screen"} what @param {unknown} error */
function explainDenial(what, error) {
  const name = error instanceof Error ? error.name : "";
  switch (name) {
    case "NotAllowedError":
      return `The ${what} was refused. Allow it in the address bar, then start again.`;
    case "NotFoundError":
    case "OverconstrainedError":
      return `There is no ${what} on this device that can be used.`;
    case "NotReadableError":
      return `The ${what} is in use by another program.`;
    case "TypeError":
    case "NotSupportedError":
      return `This browser cannot share a ${what}.`;
    default:
      return `The ${what} could not be opened: ${error}`;
  }
}

/** @param {MediaStream} media @param {string} contentHint @returns {Source} */
function direct(media, contentHint) {
  return { media, contentHint, stop: () => media.getTracks().forEach((track) => track.stop()) };
}

/**
 * @param {MediaStream} captured
 * @param {string} contentHint
 * @returns {Promise<Source>}
 */
async function throughSquare(captured, contentHint) {
  const inner = direct(captured, contentHint);
  try {
    const video = await playing({ srcObject: captured });
    const painted = paint(video, true);
    captured.getAudioTracks().forEach((track) => painted.media.addTrack(track));
    forwardEnd(captured, painted.media);
    return {
      media: painted.media,
      contentHint,
      stop() {
        painted.stop();
        video.srcObject = null;
        inner.stop();
      },
    };
  } catch (error) {
    inner.stop();
    throw error;
  }
}

/** The browser's own "stop sharing" ends the captured track; tell it on the painted one. */
/** @param {MediaStream} from @param {MediaStream} to */
function forwardEnd(from, to) {
  from.getVideoTracks()[0]?.addEventListener("ended", () => {
    to.getVideoTracks()[0]?.dispatchEvent(new Event("ended"));
  });
}

/**
 * @param {Partial<HTMLVideoElement>} properties
 * @returns {Promise<HTMLVideoElement>}
 */
async function playing(properties) {
  const video = document.createElement("video");
  Object.assign(video, { muted: true, playsInline: true, ...properties });
  await video.play();
  return video;
}

/**
 * Paint each frame of a video on a canvas: its middle square at 512x512, or all of it at an even
 * size the service takes.
 * @param {HTMLVideoElement} video
 * @param {boolean} square
 */
function paint(video, square) {
  const from = square ? middleSquare(video) : whole(video);
  const [width, height] = square ? [SQUARE, SQUARE] : accepted(from.width, from.height);
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { alpha: false });
  if (!context) throw new SourceError("This browser has no 2D canvas.");
  const media = canvas.captureStream(0); // a frame only when one is requested
  const track = media.getVideoTracks()[0];
  // Firefox has the method on the stream, the standard on the track.
  const capture = /** @type {CanvasCaptureMediaStreamTrack} */ (
    "requestFrame" in track ? track : media
  );
  const stop = eachFrame(video, () => {
    context.drawImage(video, from.x, from.y, from.width, from.height, 0, 0, width, height);
    capture.requestFrame();
  });
  return {
    media,
    stop() {
      stop();
      video.pause();
      track.stop();
    },
  };
}

/**
 * @param {HTMLVideoElement} video
 * @param {() => void} draw
 * @returns {() => void} stops it
 */
function eachFrame(video, draw) {
  if (!("requestVideoFrameCallback" in video)) {
    const timer = setInterval(draw, 1000 / FALLBACK_FPS);
    return () => clearInterval(timer);
  }
  let id = 0;
  const next = () => {
    id = video.requestVideoFrameCallback(() => {
      next();
      draw();
    });
  };
  next();
  return () => video.cancelVideoFrameCallback(id);
}

/** @param {HTMLVideoElement} video */
function middleSquare({ videoWidth, videoHeight }) {
  const side = Math.min(videoWidth, videoHeight);
  return { x: (videoWidth - side) / 2, y: (videoHeight - side) / 2, width: side, height: side };
}

/** @param {HTMLVideoElement} video */
function whole({ videoWidth, videoHeight }) {
  return { x: 0, y: 0, width: videoWidth, height: videoHeight };
}

/** @param {number} width @param {number} height @returns {[number, number]} even, at most 1280 */
export function accepted(width, height) {
  const scale = Math.min(1, LONGEST_SIDE / Math.max(width, height));
  /** @param {number} side */
  const even = (side) => Math.max(64, Math.round((side * scale) / 2) * 2);
  return [even(width), even(height)];
}
