"""Pictures of the gallery: copies with few colours, and screenshots of the report."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from gallery_looks import SHOTS
from PIL import Image, ImageChops

GREYS = 32


def copy_picture(source: Path, target: Path) -> None:
    """Copy an animation unchanged. Reduce a picture to 32 greys if it is grey, else to 256
    colours."""
    if source.suffix == ".gif":
        shutil.copyfile(source, target)
        return
    image = Image.open(source).convert("RGB")
    red, green, blue = image.split()
    same = all(ImageChops.difference(red, c).getextrema()[1] == 0 for c in (green, blue))
    small = reduce_greys(image) if same else quantize(image)
    small.save(target, "PNG", optimize=True)


def reduce_greys(image: Image.Image) -> Image.Image:
    """Round to evenly spaced greys, of which an eye cannot tell neighbours apart."""
    levels = np.round(np.asarray(image.convert("L")) / 255 * (GREYS - 1)).astype(np.uint8)
    small = Image.fromarray(levels, "P")
    palette = np.round(np.linspace(0, 255, GREYS)).astype(np.uint8)
    small.putpalette(palette.repeat(3).tobytes())
    return small


def quantize(image: Image.Image) -> Image.Image:
    """Replace each colour by the nearest of 256: 16 greys, for text, the 112 most frequent colours,
    and repeatedly the colour that is farthest from all of these. No colour is then far from its
    replacement; a median cut could give one class the colour of another."""
    pixels = np.asarray(image).reshape(-1, 3)
    colours, which, counts = np.unique(pixels, axis=0, return_inverse=True, return_counts=True)
    colours = colours.astype(int)  # (N, 3)
    greys = np.linspace(0, 255, 16).round().astype(int)[:, None].repeat(3, 1)
    palette = [*greys, *colours[counts.argsort()[::-1][:112]]]
    distance = np.full(len(colours), np.inf)
    nearest = np.zeros(len(colours), np.uint8)
    for i in range(256):
        if i == len(palette):
            palette.append(colours[distance.argmax()])
        from_this = ((colours - palette[i]) ** 2).sum(1)
        nearest[from_this < distance] = i
        distance = np.minimum(distance, from_this)
    small = Image.fromarray(nearest[which.ravel()].reshape(image.height, image.width), "P")
    small.putpalette(np.array(palette, np.uint8).tobytes())
    return small


def photograph(page: Path, folder: Path) -> None:
    """Take screenshots: on a desktop with the pointer over the map, and on a phone in dark mode."""
    path = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        path = None
    if path is None:
        print("no Chromium: the pictures of the report are not changed")
        return
    desktop = {"viewport": {"width": 1200, "height": 900}, "color_scheme": "light"}
    phone = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}
    phone |= {"device_scale_factor": 2, "is_mobile": True, "has_touch": True}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for file, options in zip(SHOTS, (desktop, phone), strict=True):
            tab = browser.new_context(**options).new_page()
            tab.goto(page.as_uri())
            tab.wait_for_selector("html.lf-done", state="attached")
            tab.get_by_text("Latent map of").first.evaluate("it => it.scrollIntoView()")
            chart = tab.locator("#explorer-1 .nsewdrag").first
            if file == "report-desktop.png" and (box := chart.bounding_box()):
                tab.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
            tab.wait_for_timeout(500)
            tab.screenshot(path=folder / file)
            copy_picture(folder / file, folder / file)
        browser.close()
