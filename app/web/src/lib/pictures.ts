// Pictures beside texts: files of the visitor's as data URLs, which go to this server only.
import type { Model } from "./api";

export interface Picture {
  name: string;
  url: string;
}

export type Item = string | Picture;

export const PICTURE_TYPES = "image/png,image/jpeg,image/webp,image/gif,image/bmp";

export function takesPictures(model: Model | undefined): boolean {
  return model?.input_modalities?.includes("image") ?? false;
}

export function isPicture(file: File): boolean {
  return PICTURE_TYPES.split(",").includes(file.type);
}

export function nameOf(item: Item): string {
  return typeof item === "string" ? item : item.name;
}

// As OpenAI's APIs write a picture.
export function inputOf(item: Item): unknown {
  return typeof item === "string" ? item : { type: "image_url", image_url: { url: item.url } };
}

export function sizeOf(item: Item): number {
  return typeof item === "string" ? item.length : item.url.length;
}

export function readPictures(files: Iterable<File>): Promise<Picture[]> {
  return Promise.all(
    [...files].map(
      (file) =>
        new Promise<Picture>((resolve, reject) => {
          const reader = new FileReader();
          reader.onload = () => resolve({ name: file.name, url: reader.result as string });
          reader.onerror = () => reject(new Error(`${file.name} cannot be read.`));
          reader.readAsDataURL(file);
        }),
    ),
  );
}
