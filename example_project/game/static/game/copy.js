// A copy button for the invite link. Without this script, or where copying is not allowed, the link is there to select.
const field = document.getElementById("invite-link");
const button = document.getElementById("copy");

field.addEventListener("focus", () => field.select());

if (navigator.clipboard) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const told = document.getElementById("copied");
    try {
      await navigator.clipboard.writeText(field.value);
      told.textContent = "Copied.";
    } catch {
      field.focus();
      told.textContent = "Please copy it by hand: it is selected.";
    }
  });
}
