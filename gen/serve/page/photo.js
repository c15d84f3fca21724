// A picture on which places light up.

import { el } from "./dom.js";

const DIM = 0.72;

export class Photo {
  // `seen`: {cells, crop}; crop is the part of the shorter side that the model sees, 0: the whole picture.
  constructor(url, { cells, crop }) {
    this.side = Math.round(Math.sqrt(cells));
    this.crop = crop;
    this.image = el("img", { src: url, alt: "The picture that the model reads" });
    this.canvas = el("canvas", { "aria-hidden": "true" });
    this.image.addEventListener("load", () => this.element.style.setProperty("--ratio", this.image.naturalWidth / this.image.naturalHeight));
    this.element = el("figure", { class: "photo" }, this.image, this.canvas);
  }

  shade(weights) {
    const { canvas, image } = this;
    canvas.classList.toggle("lit", weights != null && weights.length > 0);
    if (!weights?.length || !image.naturalWidth) return;
    const scale = 512 / Math.max(image.naturalWidth, image.naturalHeight);
    canvas.width = Math.round(image.naturalWidth * scale);
    canvas.height = Math.round(image.naturalHeight * scale);
    const pen = canvas.getContext("2d");
    const [left, top, width, height] = this.#box(canvas.width, canvas.height);
    pen.fillStyle = `rgb(0 0 0 / ${DIM})`;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.clearRect(left, top, width, height);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(this.#shadow(weights), left, top, width, height);
  }

  #box(width, height) {
    if (!this.crop) return [0, 0, width, height];
    const side = Math.min(width, height) * this.crop;
    return [(width - side) / 2, (height - side) / 2, side, side];
  }

  #shadow(weights) {
    const small = el("canvas", { width: this.side, height: this.side });
    const pixels = new ImageData(this.side, this.side);
    const most = Math.max(...weights, 1e-9);
    weights.forEach((weight, cell) => (pixels.data[4 * cell + 3] = 255 * DIM * (1 - weight / most)));
    small.getContext("2d").putImageData(pixels, 0, 0);
    return small;
  }
}
