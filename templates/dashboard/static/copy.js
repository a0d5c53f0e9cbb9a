// Gives buttons with [data-copy] their work: the text of the element with that id goes to the clipboard.

for (const button of document.querySelectorAll("button[data-copy]")) {
  const source = document.getElementById(button.dataset.copy);
  if (!source) continue;
  const label = button.textContent;
  let back = 0;
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      // Not allowed here: at least everything is selected, for Ctrl-C.
      getSelection().selectAllChildren(source);
      button.textContent = "Selected";
    }
    clearTimeout(back);
    back = setTimeout(() => { button.textContent = label; }, 2_000);
  });
}
