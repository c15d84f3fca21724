// Pictures → RGB pixels of the size that a network takes, resized as Pillow does it.

import { Refusal } from "./tokenizers.js";

const PRECISION = 22; // bits after the point in Pillow's fixed-point weights
const BILINEAR = { support: 1, at: (x) => Math.max(1 - Math.abs(x), 0) };
const BICUBIC = {
  support: 2,
  at(x) {
    x = Math.abs(x);
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
  },
};

// A `data:` URL, or {width, height, data: RGBA} → 3 · size · size bytes, a plane per channel.
export async function preprocessed(picture, { size, resize, bicubic }) {
  let image = opaque(typeof picture === "string" ? await decoded(picture) : picture);
  if (image.jpeg) image = reduced(image, 2 * Math.max(size, resize));
  const square = resized(image, size, box(image, size, resize), bicubic ? BICUBIC : BILINEAR);
  const planes = new Uint8Array(3 * size * size);
  for (let i = 0; i < size * size; i++) for (let c = 0; c < 3; c++) planes[c * size * size + i] = square[3 * i + c];
  return planes;
}

// As a viewer shows it: upright, its colours as they are in the file.
async function decoded(url) {
  const [head, data] = [url.slice(0, url.indexOf(",")), url.slice(url.indexOf(",") + 1)];
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  let bitmap;
  try {
    const how = { colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "from-image" };
    bitmap = await createImageBitmap(new Blob([bytes], { type: head.slice(5).split(";")[0] }), how);
  } catch {
    throw new Refusal("this browser cannot open the picture: take a JPEG, PNG or WebP");
  }
  const { width, height } = bitmap;
  const pen = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  pen.drawImage(bitmap, 0, 0);
  bitmap.close();
  return { width, height, data: pen.getImageData(0, 0, width, height).data, jpeg: bytes[0] === 0xff && bytes[1] === 0xd8 };
}

// RGBA → RGB on white.
function opaque({ width, height, data, jpeg }) {
  const rgb = new Uint8Array(3 * width * height);
  for (let i = 0; i < width * height; i++) {
    const alpha = data[4 * i + 3];
    for (let c = 0; c < 3; c++) {
      const mixed = data[4 * i + c] * alpha + 255 * (255 - alpha) + 128; // rounded as Pillow does
      rgb[3 * i + c] = (mixed + (mixed >> 8)) >> 8;
    }
  }
  return { width, height, data: rgb, jpeg };
}

// Pillow decodes a JPEG that is far larger than `wanted` at a half, a fourth or an eighth of its size.
function reduced({ width, height, data }, wanted) {
  const scale = Math.min(Math.floor(width / wanted), Math.floor(height / wanted));
  const by = [8, 4, 2, 1].find((each) => scale >= each || each === 1);
  if (by === 1) return { width, height, data };
  const [w, h] = [Math.ceil(width / by), Math.ceil(height / by)];
  const small = new Uint8Array(3 * w * h);
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const [right, bottom] = [Math.min(width, (x + 1) * by), Math.min(height, (y + 1) * by)];
      const sums = [0, 0, 0];
      for (let v = y * by; v < bottom; v++) for (let u = x * by; u < right; u++) for (let c = 0; c < 3; c++) sums[c] += data[3 * (v * width + u) + c];
      const count = (right - x * by) * (bottom - y * by);
      for (let c = 0; c < 3; c++) small[3 * (y * w + x) + c] = Math.round(sums[c] / count);
    }
  }
  return { width: w, height: h, data: small };
}

// The part that is used, as `Preprocessing.box` has it, in single precision.
function box({ width, height }, size, resize) {
  if (!resize) return [0, 0, width, height];
  const side = Math.min(width, height) * Math.min(size / resize, 1);
  const [left, top] = [(width - side) / 2, (height - side) / 2];
  return [left, top, left + side, top + side].map(Math.fround);
}

export function resized({ width, height, data }, size, [left, top, right, bottom], filter) {
  const whole = left === 0 && top === 0 && right === width && bottom === height;
  const across = weights(width, left, right, size, filter);
  const down = weights(height, top, bottom, size, filter);
  const horizontal = ({ data, width, height }) => {
    if (whole && width === size) return { data, width, height };
    const found = new Uint8Array(3 * size * height);
    across.forEach(({ from, factors }, x) => {
      for (let y = 0; y < height; y++) for (let c = 0; c < 3; c++) found[3 * (y * size + x) + c] = summed(data, 3 * (y * width + from) + c, 3, factors);
    });
    return { data: found, width: size, height };
  };
  const vertical = ({ data, width, height }) => {
    if (whole && height === size) return { data, width, height };
    const found = new Uint8Array(3 * width * size);
    down.forEach(({ from, factors }, y) => {
      for (let i = 0; i < 3 * width; i++) found[3 * width * y + i] = summed(data, 3 * width * from + i, 3 * width, factors);
    });
    return { data: found, width, height: size };
  };
  // Each pass rounds, so their order shows in the last bit. This is Pillow 13's; before, the horizontal one was first.
  const image = { data, width, height };
  const tall = height - size > 2 * Math.max(width - size, 0);
  return (tall ? horizontal(vertical(image)) : vertical(horizontal(image))).data;
}

function summed(data, at, stride, factors) {
  let sum = 1 << (PRECISION - 1);
  for (let i = 0; i < factors.length; i++) sum += data[at + i * stride] * factors[i];
  return Math.max(0, Math.min(255, sum >> PRECISION));
}

// Which pixels each pixel of the result is made of, and how much of each.
function weights(length, begin, end, size, { support, at }) {
  const scale = Math.fround(end - begin) / size;
  const stretch = Math.max(scale, 1);
  return Array.from({ length: size }, (_, i) => {
    const center = begin + (i + 0.5) * scale;
    const from = Math.max(Math.trunc(center - support * stretch + 0.5), 0);
    const to = Math.min(Math.trunc(center + support * stretch + 0.5), length);
    const plain = Array.from({ length: to - from }, (_, x) => at((x + from - center + 0.5) * (1 / stretch)));
    const total = plain.reduce((sum, each) => sum + each, 0);
    const factors = plain.map((each) => {
      const fixed = (total ? each / total : each) * (1 << PRECISION);
      return Math.trunc(fixed + (fixed < 0 ? -0.5 : 0.5));
    });
    return { from, factors: Int32Array.from(factors) };
  });
}
