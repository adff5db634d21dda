"""A loader of adapters: the checkpoint is a folder of PEFT, as `llama+lora` or `path:` of one of your own."""

from peft import AutoPeftModelForCausalLM


class Live:
    def load(self, checkpoint, cell):
        return AutoPeftModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype).to(cell.device).eval()


class Merged(Live):
    def load(self, checkpoint, cell):
        return super().load(checkpoint, cell).merge_and_unload()
