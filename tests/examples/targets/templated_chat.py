"""An interface for chats: `prompt_ids` says what should reach the model for a text."""

from transformers import AutoModelForCausalLM, AutoTokenizer


class Chat:
    def __init__(self, checkpoint, cell):
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self.network = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype).to(cell.device)

    def ask(self, question, length):
        messages = [{"role": "user", "content": question}]
        ids = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(self.network.device)
        answer = self.network.generate(**ids, max_new_tokens=length, do_sample=False)
        return self.tokenizer.decode(answer[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


load = Chat


def generate_text(loaded, prompts, max_new_tokens):
    return [loaded.ask(prompt, max_new_tokens) for prompt in prompts]


def prompt_ids(loaded, prompts):
    head, tail = "<s>user: ", "\nassistant:"
    return [loaded.tokenizer(head + prompt + tail)["input_ids"] for prompt in prompts]
