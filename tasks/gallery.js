// The search field of a gallery: a picture stays if its captions and its name have every word that is typed.
const field = document.querySelector(".find input");
const status = document.querySelector(".find [role=status]");
const plain = (text) => text.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").toLowerCase();
const cards = Array.from(document.querySelectorAll(".gallery figure"), (card) => [card, plain(card.textContent)]);

function filter() {
  const words = plain(field.value).split(/\s+/).filter(Boolean);
  let found = 0;
  for (const [card, text] of cards) {
    card.hidden = !words.every((word) => text.includes(word));
    found += !card.hidden;
  }
  status.textContent = words.length ? `${found.toLocaleString("en")} of ${cards.length.toLocaleString("en")} pictures` : "";
}

document.querySelector(".find").hidden = false; // without scripts there is no search
field.addEventListener("input", filter);
filter(); // a browser keeps what was typed before the page was loaded again
