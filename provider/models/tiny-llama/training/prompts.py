"""Write prompts.json: dialogues and the tokens that they must render to.

Usage: python prompts.py   (in the folder that holds tokenizer.json)
Needs: tokenizers (from PyPI).
"""

import json

from tokenizers import Tokenizer

QUESTIONS = [
    "Hello",
    "What is 12 + 7?",
    "What is 9 minus 4?",
    "What is 7 times 8?",
    "What is the capital of Norway?",
    "Which day comes after Friday?",
    "Count from 2 to 9.",
    "Who are you?",
    "What is Rust?",
    "Repeat these words: river stone cloud.",
    "Which is larger, 17 or 71?",
    "Write a haiku.",
]
TOOLS = (
    "You may call these tools:\n"
    '{"name": "get_weather", "parameters": {"city": "string"}}\n'
    '{"name": "get_time", "parameters": {"city": "string"}}'
)
ASKING = [("system", TOOLS), ("user", "What is the weather in Oslo?")]
ANSWERED = [
    (
        "assistant",
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>',
    ),
    ("tool", '{"temperature": 3, "sky": "windy"}'),
]


def main():
    tokenizer = Tokenizer.from_file("tokenizer.json")
    dialogues = [(question, [("user", question)]) for question in QUESTIONS]
    dialogues += [("tool", ASKING), ("tool result", ASKING + ANSWERED)]
    tests = []
    for name, messages in dialogues:
        text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in messages)
        tests.append(
            {
                "name": name,
                "messages": [{"role": role, "content": content} for role, content in messages],
                "tokens": tokenizer.encode(text + "<|im_start|>assistant\n").ids,
            }
        )
    with open("prompts.json", "w", encoding="utf8") as out:
        # One test per line.
        out.write("[\n" + ",\n".join(json.dumps(test) for test in tests) + "\n]\n")


if __name__ == "__main__":
    main()
