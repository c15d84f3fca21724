// A short tour over the reader's own model: each step sets the sliders, has the model write, and says what to see.

import { el } from "./dom.js";

const STEPS = {
  text: [
    [{ temperature: 0, top_k: 0, top_p: 1 }, "Why does greedy text loop? At temperature 0 the model always takes the likeliest token. Once a text repeats itself its state is nearly what it was before, so the likeliest token is the same again. Write on from other prompts, and see how soon they meet."],
    [{ temperature: 0.3 }, "Temperature divides the logarithms of the probabilities before a token is drawn. At 0.3 likely tokens become likelier still: the text is safe, and a little dull."],
    [{ temperature: 1 }, "At 1 the model writes what it believes: of tokens with a probability of 10 %, every tenth comes. Dark tokens surprised it. Where does that happen: at the beginning of a word, or within?"],
    [{ temperature: 1.5 }, "At 1.5 unlikely tokens come often. One of them is enough to lead the model where it has never been, and it goes astray from there."],
    [{ temperature: 0.8 }, "Click a token: the bars show what else could have come. Choose one of them, and the text is written anew from there: all that the model knows of the text is its state."],
  ],
  translation: [
    [{ beam: 1, n_best: 1 }, "Where does it look when it translates? Move over the words of the translation: the sentence shows by its colours what the model attended to. Are there words that are written without looking at any?"],
    [{ beam: 5, n_best: 3 }, "A beam keeps several beginnings and gives up the least probable ones at each step. Open the tree: what was given up is pale. Sometimes the better translation begins with the less likely word."],
    [{ beam: 12, n_best: 5 }, "A wider beam finds more probable translations; they are seldom better ones. Compare the alternatives, and their scores."],
  ],
  pictures: [
    [{ beam: 1, n_best: 1 }, "Where does it look when it describes? Move over the words: the picture lights up where the model attended. Words such as “of” need no picture, and light up anything."],
    [{ beam: 5, n_best: 5 }, "A beam keeps several beginnings. Its alternatives show how sure the model is of what it sees."],
  ],
};

// `go(values)`: sets sliders, and asks the model. null where there is nothing to tell.
export function tour(kind, go) {
  const steps = STEPS[kind];
  if (!steps) return null;
  let at = -1;
  const says = el("p", { role: "status" }, `${steps.length} steps with this model.`);
  const button = el("button", { type: "button" }, "Begin");
  button.addEventListener("click", () => {
    at = (at + 1) % steps.length;
    const [values, text] = steps[at];
    says.textContent = `${at + 1} of ${steps.length}. ${text}`;
    button.textContent = at + 1 < steps.length ? "Next" : "Again";
    go(values);
  });
  return el("details", { class: "tour" }, el("summary", {}, "A short tour"), says, button);
}
