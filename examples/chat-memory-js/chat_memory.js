// An agent that remembers a conversation. It saves its memory after every turn, so whatever stops it, the next run goes on from
// the last turn that was acknowledged. Its memory is that of examples/chat-memory: agents in any language go on with it.
import { agent } from "persist-guest";
import { Memory, shown } from "./memory.js";

const USAGE = `usage: say TEXT…            remember each TEXT as a turn of the conversation
       follow LINE…         a conversation, one line each (\`Speaker: text\` or plain text):
                            go on from the first line that is not remembered
       recall [WORD]        the last turns, or those that hold WORD`;

export const run = agent(([command, ...rest]) => {
  if (command === "say" && rest.length > 0) return say(rest);
  if (command === "follow" && rest.length > 0) return follow(rest);
  if (command === "recall" && rest.length < 2) return recall(rest[0]);
  throw new Error(USAGE);
});

function say(texts) {
  const memory = new Memory();
  const answers = texts.map((text) => {
    const found = memory.lastAbout(text);
    const echo = found ? `you spoke of "${found.word}" before, in turn ${found.turn}` : "that is new to me";
    memory.add(text);
    return `turn ${memory.turns.length}: ${echo}`;
  });
  return answers.join("\n");
}

function follow(lines) {
  const memory = new Memory();
  const known = memory.turns.length;
  memory.checkBeginningOf(lines);
  for (const line of lines.slice(known)) memory.add(line);
  return `remembered ${known} turns, added ${lines.length - known}`;
}

function recall(word) {
  const { turns } = new Memory();
  const numbered = turns.map((turn, at) => `turn ${at + 1}: ${shown(turn)}`);
  const chosen =
    word === undefined
      ? numbered.slice(-3)
      : numbered.filter((turn) => turn.toLowerCase().includes(word.toLowerCase()));
  return [`I remember ${turns.length} turns.`, ...chosen].join("\n");
}
