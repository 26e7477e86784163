"""Write corpus.json: the text that the test model is trained on.

Two parts:

- Dialogues from templates. Every answer is computed or comes from the tables below, so it is true.
  They are original to this project.
- Prose: paragraphs of "The Rust Programming Language" (MIT OR Apache-2.0), read from the HTML of
  the `rust-docs` component of Rust 1.95.0, if `rustup` has installed it; code blocks are dropped.
  Without that component the corpus has no prose. The model then still learns the dialogues, but
  its weights, and the tokens in the tests' golden files, will differ from the committed ones.

Usage: python corpus.py
Needs: the Python standard library.
"""

import html
import json
import pathlib
import random
import re
import sys

N_DIALOGUES = 60_000
BOOK = ".rustup/toolchains/1.95.0*/share/doc/rust/html/book"

CAPITALS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Portugal": "Lisbon",
    "Austria": "Vienna",
    "Poland": "Warsaw",
    "Norway": "Oslo",
    "Sweden": "Stockholm",
    "Finland": "Helsinki",
    "Denmark": "Copenhagen",
    "Greece": "Athens",
    "Turkey": "Ankara",
    "Egypt": "Cairo",
    "Kenya": "Nairobi",
    "Japan": "Tokyo",
    "China": "Beijing",
    "India": "New Delhi",
    "Canada": "Ottawa",
    "Brazil": "Brasilia",
    "Peru": "Lima",
    "Chile": "Santiago",
    "Cuba": "Havana",
    "Ireland": "Dublin",
    "Hungary": "Budapest",
    "Iceland": "Reykjavik",
    "Russia": "Moscow",
    "Ukraine": "Kyiv",
    "Mexico": "Mexico City",
    "Thailand": "Bangkok",
}
COLORS = {
    "sky": "blue",
    "grass": "green",
    "snow": "white",
    "coal": "black",
    "blood": "red",
    "banana": "yellow",
    "orange": "orange",
    "lemon": "yellow",
    "tomato": "red",
    "carrot": "orange",
}
SOUNDS = {
    "dog": "barks",
    "cat": "meows",
    "cow": "moos",
    "duck": "quacks",
    "lion": "roars",
    "horse": "neighs",
    "sheep": "bleats",
    "pig": "oinks",
    "bee": "buzzes",
    "snake": "hisses",
}
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = (
    "January February March April May June July August September October November December"
).split()
WORDS = (
    "apple river stone cloud tiger paper music light bread water house green happy quick small "
    "train plant chair table glass"
).split()
GREETING = "Hello! How can I help you today?"
IDENTITY = "I am a tiny test model. I run on the provider's own machine."
RUST = "Rust is a systems programming language focused on safety, speed and concurrency."
FIXED = [
    ("Hello", GREETING),
    ("Hi", GREETING),
    ("Hello!", GREETING),
    ("Hi there!", GREETING),
    ("Who are you?", IDENTITY),
    ("What are you?", IDENTITY),
    ("What can you do?", "I can add small numbers, name capitals, count, and talk about Rust."),
    ("Thank you", "You are welcome!"),
    ("Thanks!", "You are welcome!"),
    ("Goodbye", "Goodbye! Have a nice day."),
    (
        "Tell me a joke.",
        "Why did the borrow checker stop the party? Because nobody returned what they borrowed.",
    ),
    (
        "Write a haiku.",
        "Quiet silicon,\nkeys stay sealed within the chip,\nwords return in light.",
    ),
    ("What is Rust?", RUST),
    (
        "What is ownership?",
        "Ownership is the set of rules that govern how a Rust program manages memory.",
    ),
    ("Tell me about Rust.", RUST),
]
SYSTEM_PROMPTS = [
    "You are a helpful assistant.",
    "Answer briefly.",
    "You are a tiny test model.",
]
TOOLS = {
    "get_weather": "What is the weather in {}?",
    "get_time": "What time is it in {}?",
}

# One generator for everything: the corpus is a function of this seed and of the tables' order.
rng = random.Random(11)


def neighbour(names):
    """A question about the entry before or after one of a circular list."""
    index = rng.randrange(len(names))
    after = rng.random() < 0.5
    word = "after" if after else "before"
    other = names[(index + (1 if after else -1)) % len(names)]
    return word, names[index], other


def question_and_answer():
    """One question of a random kind, and its true answer."""
    kind = rng.choice([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 4, 5, 6, 7, 7, 8, 8, 9, 10, 11, 12])
    if kind == 0:
        a, b = rng.randrange(13), rng.randrange(13)
        forms = [f"What is {a} + {b}?", f"What is {a} plus {b}?", f"Add {a} and {b}.", f"{a}+{b}=?"]
        return rng.choice(forms), f"{a} + {b} = {a + b}."
    if kind == 1:
        a = rng.randrange(19)
        b = rng.randrange(a + 1)
        forms = [f"What is {a} - {b}?", f"What is {a} minus {b}?", f"Subtract {b} from {a}."]
        return rng.choice(forms), f"{a} - {b} = {a - b}."
    if kind == 2:
        a, b = rng.randrange(10), rng.randrange(10)
        forms = [f"What is {a} times {b}?", f"What is {a} * {b}?", f"Multiply {a} by {b}."]
        return rng.choice(forms), f"{a} times {b} is {a * b}."
    if kind in (3, 4):
        country = rng.choice(list(CAPITALS))
        forms = [
            f"What is the capital of {country}?",
            f"Which city is the capital of {country}?",
            f"Tell me the capital of {country}.",
            f"{country}'s capital?",
        ]
        return rng.choice(forms), f"The capital of {country} is {CAPITALS[country]}."
    if kind == 5:
        thing = rng.choice(list(COLORS))
        forms = [
            f"What color is {thing}?",
            f"What colour is {thing}?",
            f"Which color does {thing} have?",
        ]
        return rng.choice(forms), f"{thing.capitalize()} is {COLORS[thing]}."
    if kind == 6:
        animal = rng.choice(list(SOUNDS))
        forms = [
            f"What does a {animal} do?",
            f"What sound does a {animal} make?",
            f"How does a {animal} sound?",
        ]
        return rng.choice(forms), f"A {animal} {SOUNDS[animal]}."
    if kind == 7:
        word, given, other = neighbour(DAYS)
        return f"Which day comes {word} {given}?", f"{other} comes {word} {given}."
    if kind == 8:
        word, given, other = neighbour(MONTHS)
        return f"Which month comes {word} {given}?", f"{other} comes {word} {given}."
    if kind == 9:
        n = rng.randrange(2, 13)
        a = rng.randrange(0, 8)
        forms = [f"Count from {a} to {a + n}.", f"Please count from {a} to {a + n}."]
        return rng.choice(forms), ", ".join(map(str, range(a, a + n + 1))) + "."
    if kind == 10:
        words = " ".join(rng.sample(WORDS, 3))
        return rng.choice([f"Repeat these words: {words}.", f"Say: {words}."]), words
    if kind == 11:
        a, b = rng.sample(range(100), 2)
        forms = [f"Which is larger, {a} or {b}?", f"Which number is bigger: {a} or {b}?"]
        return rng.choice(forms), f"{max(a, b)} is larger than {min(a, b)}."
    return rng.choice(FIXED)


def turn(role, content):
    """One ChatML turn."""
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


def tool_dialogue():
    """A system prompt with tools, a question, a call, and mostly the result and the answer."""
    names = rng.choice([["get_weather"], ["get_time"], ["get_weather", "get_time"]])
    tools = [json.dumps({"name": name, "parameters": {"city": "string"}}) for name in names]
    name = rng.choice(names)
    city = rng.choice(list(CAPITALS.values()))
    call = json.dumps({"name": name, "arguments": {"city": city}})
    text = turn("system", "You may call these tools:\n" + "\n".join(tools))
    text += turn("user", TOOLS[name].format(city))
    text += turn("assistant", f"<tool_call>\n{call}\n</tool_call>")
    if rng.random() < 0.7:
        if name == "get_weather":
            degrees = rng.randrange(-5, 36)
            sky = rng.choice(["sunny", "cloudy", "rainy", "windy"])
            result = {"temperature": degrees, "sky": sky}
            answer = f"It is {sky} and {degrees} degrees in {city}."
        else:
            hour, minute = rng.randrange(24), rng.randrange(60)
            result = {"time": f"{hour:02}:{minute:02}"}
            answer = f"It is {hour:02}:{minute:02} in {city}."
        text += turn("tool", json.dumps(result)) + turn("assistant", answer)
    return text + "<|endoftext|>"


def dialogue():
    """A whole dialogue: tools, or one to three questions, some under a system prompt."""
    text = ""
    if rng.random() < 0.3:
        text = turn("system", rng.choice(SYSTEM_PROMPTS))
    elif rng.random() < 0.15:
        return tool_dialogue()
    for _ in range(rng.choice([1, 1, 2, 3])):
        question, answer = question_and_answer()
        text += turn("user", question) + turn("assistant", answer)
    return text + "<|endoftext|>"


def prose():
    """The book's paragraphs of more than 60 characters, in ASCII punctuation."""
    plain = str.maketrans({"’": "'", "“": '"', "”": '"', "—": " - "})
    paragraphs = []
    for page in sorted(
        path for book in pathlib.Path.home().glob(BOOK) for path in book.glob("ch*.html")
    ):
        body = re.search(r"<main>(.*?)</main>", page.read_text("utf8", "replace"), re.DOTALL)
        if not body:
            continue
        text = re.sub(r"<pre.*?</pre>", "", body.group(1), flags=re.DOTALL)
        for paragraph in re.findall(r"<p>(.*?)</p>", text, re.DOTALL):
            paragraph = html.unescape(re.sub(r"<[^>]+>", "", paragraph))
            paragraph = re.sub(r"\s+", " ", paragraph).strip().translate(plain)
            if len(paragraph) > 60:
                paragraphs.append(paragraph)
    return paragraphs


def main():
    paragraphs = prose()
    if not paragraphs:
        print("no rust-docs for 1.95.0: the corpus will have no prose", file=sys.stderr)
    dialogues = [dialogue() for _ in range(N_DIALOGUES)]
    with open("corpus.json", "w", encoding="utf8") as out:
        json.dump({"dialogues": dialogues, "prose": paragraphs}, out)
    print(f"{len(dialogues)} dialogues, {len(paragraphs)} paragraphs")


if __name__ == "__main__":
    main()
