"""Write the pictures of the server's page in docs/images, by Chromium without a window.

    make demo                              # the base model, and the prompt for sentiment
    python docs/generate_pictures.py

The page serves the demo's base model with the trained prompt of `make demo`, whose scores are on
its card. The other prompts are untrained: their vectors are the embeddings of an instruction, and
they have no scores.
"""

import io
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import torch
from PIL import Image
from record import DEMO_BASE, DEMO_NAME

from softhub import Hub, PromptModel, Task, load_base
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Template, Verbalizer
from tests.prompts import soft_prompt
from tests.serving.server import chromium, running

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
TRAINED = ROOT / "runs" / "demo" / "adapter"
LARGEST = 120_000
COLORS = 128
WIDTH = 1100
TEXT = "The screen is bright and sharp, but the battery is empty before lunch."
CHOSEN = ("base", "sentiment", "product-part", "reply")
PARTS = ("battery", "screen", "sound", "camera", "price")
INSTRUCTIONS = {
    "Name the part of the product that the customer of this review complains about.": Task(
        name="product-part",
        kind="classification",
        description="The part of a product that a review complains about.",
        language="en",
        template=Template("Review: {text}\nThe complaint is about the"),
        verbalizer=Verbalizer.from_mapping({part: f" {part}" for part in PARTS}),
    ),
    "Write a short and friendly answer to the customer who wrote this review.": Task(
        name="reply",
        kind="generation",
        description="A short answer to the review of a customer.",
        language="en",
        template=Template('Review: "{text}"\nAnswer: "Dear customer,'),
        generation={"max_new_tokens": 40, "stop": ["\n", '"']},
    ),
}


def untrained(base, instruction, task):
    """A prompt of the embeddings of an instruction."""
    ids = base.encoder.tokens(instruction)
    manifest = soft_prompt(base, len(ids), task, provenance={"init": instruction}).manifest
    return SoftPrompt(base.embed(torch.tensor(ids)), manifest)


def adapters(base, folder):
    """Return the adapter folders of the page by name."""
    found = {"sentiment": TRAINED}
    for instruction, task in INSTRUCTIONS.items():
        prompt = untrained(base, instruction, task)
        found[task.name] = prompt.save_pretrained(folder / task.name)
    return found


def save(name, png):
    """Write a picture with few colors, which is a fraction of the size."""
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
    path = IMAGES / f"{name}.png"
    picture.save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.relative_to(ROOT)}: {size} bytes")
    if size > LARGEST:
        sys.exit(f"{path} is larger than {LARGEST} bytes: show less of the page.")


def shown(browser, url, scheme, height):
    """Open a page in a tab of its own."""
    viewport = {"width": WIDTH, "height": height}
    tab = browser.new_context(viewport=viewport, color_scheme=scheme).new_page()
    tab.goto(url)
    return tab


def try_out(browser, url, scheme):
    """Return a picture of four answers to one text, side by side."""
    tab = shown(browser, url, scheme, height=760)
    for box in tab.locator("input[name=model]").all():
        box.set_checked(box.get_attribute("value") in CHOSEN)
    tab.get_by_label("Text", exact=True).fill(TEXT)
    tab.get_by_role("button", name="Ask").click()
    tab.wait_for_selector(".columns[aria-busy=false]", timeout=120_000)
    end = tab.locator("#answers").bounding_box()
    height = end["y"] + end["height"] + 16
    return tab.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": height}, full_page=True)


def main():
    if not TRAINED.is_dir():
        sys.exit(f"{TRAINED} does not exist; run: make demo")
    base = load_base(ROOT / DEMO_BASE, name=DEMO_NAME)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        hub, model = Hub(f"local:{folder / 'hub'}"), PromptModel(base)
        for name, adapter in adapters(base, folder).items():
            message = "Trained by make demo" if adapter == TRAINED else "Untrained"
            hub.push(adapter, f"demo/{name}", message=message, tags=["v1"])
            model.load_prompt(adapter, name=name)
        options = {"batch_size": 32, "hub": hub, "allow": ["demo/*"]}
        with running(model, **options) as server, chromium() as browser:
            home = shown(browser, server.url, "light", height=760)
            save("serving-home", home.screenshot(full_page=True))
            card = shown(browser, f"{server.url}/adapters/demo/sentiment", "light", height=900)
            save("serving-adapter", card.screenshot())
            save("serving-try-out", try_out(browser, server.url, "light"))
            save("serving-try-out-dark", try_out(browser, server.url, "dark"))


if __name__ == "__main__":
    main()
