/** A dialog with a form: opens with values, hands edited values back, and shows errors. */
export class Form {
  /** The id of the edited row; null for a new one. */
  id = null;
  #dialog;
  #form;
  #save;
  #remove;

  /** @param {{ save(id, values), remove(id) }} on both may throw; the message is shown */
  constructor(dialog, on) {
    this.#dialog = dialog;
    this.#form = dialog.querySelector("form");
    this.#save = on.save;
    this.#remove = on.remove;
    this.fields = this.#form.elements;
    this.fields.leave.onclick = () => dialog.close();
    this.fields.remove.onclick = () => this.#try(() => this.#remove(this.id));
    this.#form.onsubmit = (submit) => {
      submit.preventDefault();
      const wrong = [...this.fields].find((field) => !field.validity?.valid);
      if (wrong) {
        this.#showError(`${wrong.labels[0].firstChild.textContent.trim()}: ${wrong.validationMessage}`);
        wrong.focus();
        return;
      }
      this.#try(() => this.#save(this.id, this.fields));
    };
    dialog.onclose = () => (this.id = null);
    dialog.addEventListener("click", (click) => {
      if (click.target === dialog) dialog.close(); // a click outside the form
    });
  }

  open(id, title, values) {
    this.id = id;
    this.#dialog.querySelector("h2").textContent = title;
    this.#showError("");
    this.#showNote("");
    for (const [name, value] of Object.entries(values)) {
      const field = this.fields[name];
      if (field.type === "checkbox") field.checked = value;
      else field.value = value ?? "";
    }
    this.fields.remove.hidden = id === null;
    this.#dialog.querySelector("[type=submit]").disabled = false;
    this.#dialog.showModal();
  }

  /** Shows that another user changed or removed the open row. */
  showConflict(text, gone) {
    this.#showNote(text);
    if (!gone) return;
    this.fields.remove.hidden = true;
    this.#dialog.querySelector("[type=submit]").disabled = true;
  }

  async #try(action) {
    this.#showError("");
    try {
      await action();
      this.#dialog.close();
    } catch (error) {
      this.#showError(error.message);
    }
  }

  #showError(text) {
    this.#dialog.querySelector(".error").textContent = text;
  }

  #showNote(text) {
    const note = this.#dialog.querySelector(".note");
    note.textContent = text;
    note.hidden = !text;
  }
}
