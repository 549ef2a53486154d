"""Words to ids and back: tokenizer, chat template, packing, shards."""
