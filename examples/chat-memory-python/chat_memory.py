"""An agent that remembers a conversation.

It saves its memory after every turn, so whatever stops it, the next run goes on from the last turn that was acknowledged. Its
memory is that of examples/chat-memory: agents in any language go on with it.
"""

from memory import Memory
from persist_guest import agent

USAGE = """usage: say TEXT…            remember each TEXT as a turn of the conversation
       follow LINE…         a conversation, one line each (`Speaker: text` or plain text):
                            go on from the first line that is not remembered
       recall [WORD]        the last turns, or those that hold WORD"""


@agent
def run(args: list[str]) -> str:
    match args:
        case ["say", *texts] if texts:
            return say(texts)
        case ["follow", *lines] if lines:
            return follow(lines)
        case ["recall"]:
            return recall(None)
        case ["recall", word]:
            return recall(word)
    raise Exception(USAGE)


def say(texts: list[str]) -> str:
    memory = Memory()
    answers = []
    for text in texts:
        found = memory.last_about(text)
        echo = f'you spoke of "{found[1]}" before, in turn {found[0]}' if found else "that is new to me"
        memory.add(text)
        answers.append(f"turn {len(memory.turns)}: {echo}")
    return "\n".join(answers)


def follow(lines: list[str]) -> str:
    memory = Memory()
    known = len(memory.turns)
    memory.check_beginning_of(lines)
    for line in lines[known:]:
        memory.add(line)
    return f"remembered {known} turns, added {len(lines) - known}"


def recall(word: str | None) -> str:
    turns = Memory().turns
    numbered = [f"turn {number}: {turn}" for number, turn in enumerate(turns, 1)]
    if word is None:
        chosen = numbered[-3:]
    else:
        chosen = [turn for turn in numbered if word.lower() in turn.lower()]
    return "\n".join([f"I remember {len(turns)} turns.", *chosen])
