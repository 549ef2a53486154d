"""A model as a Hugging Face folder again, in another number type, and the proof that it is the
same model.

The surprising thing: a cast is proved in two steps. Every weight is the source's, rounded; and
the folder, loaded by `transformers`, says token for token what our decoder says with those weights.
What the rounding costs is then measured, and bounded, by itself.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from matura.core.disk import parse_json, telling
from matura.core.ledger import Ledger
from matura.ladder.asked import Asked
from matura.ladder.export_text import (
    Rendered,
    as_others_write,
    cautions,
    plain_check,
    tag_names,
    template_check,
)
from matura.ladder.export_weights import Spoken, compared, rounded_check, spoken
from matura.ladder.proof import SAME_LOGITS, Check, Dtype, first
from matura.text.imported import NAMES, chat_template_in
from matura.text.template import Template

CONFIG, GENERATION = "config.json", "generation_config.json"
BESIDE = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    GENERATION,
)
"""What is copied as it is."""


def write_hf(
    source: Path, folder: Path, *, dtype: Dtype, stop_ids: frozenset[int], ledger: Ledger
) -> None:
    """The model of the folder `source` in `folder`, weights rounded to `dtype`; where it does not
    say that answers end at `stop_ids`, the export does.

    Raises:
        StoreError: the source cannot be read, or the disk refuses.
    """
    import torch

    from matura.models.casting import write_cast

    kinds = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
    with telling(folder, "write"):
        for name in BESIDE:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        stops = _json(folder / GENERATION) if (folder / GENERATION).is_file() else {}
        if _ends(stops) != stop_ids:
            stops["eos_token_id"] = sorted(stop_ids)
            (folder / GENERATION).write_text(json.dumps(stops, indent=2) + "\n", encoding="utf-8")
        said = parse_json((source / CONFIG).read_bytes(), source / CONFIG)
        told = str(kinds[dtype]).removeprefix("torch.")
        said |= {"torch_dtype": told} | ({"dtype": told} if "dtype" in said else {})
        (folder / CONFIG).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
        write_cast(
            source,
            folder,
            kinds[dtype],
            told=lambda done, total: ledger.progress(done, total, unit="tensors"),
        )


def prove_hf(
    source: Path, folder: Path, template: Template, asked: Asked, *, dtype: Dtype
) -> tuple[list[Check], list[str]]:
    """The checks of the export in `folder`, and what could not be checked."""
    checks = [rounded_check(source, folder, dtype), *_text_checks(source, folder, template, asked)]
    if checks[0].wrong:
        return checks, []
    before = spoken(source, template, asked)
    after = before if dtype == "f32" else spoken(folder, template, asked)
    checks.append(compared(before, after, dtype))
    try:
        import transformers
    except ImportError:
        missing = "loading it with transformers: not installed"
        return checks, [missing, *cautions(template, checks)]
    quiet: Any = transformers.logging  # has no types
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    checks.append(_by_transformers(folder, after, asked))
    if not template.chats:
        return checks, cautions(template, checks)
    ids, caution = _ids_by_transformers(folder, template, asked)
    return [*checks, ids], caution + cautions(template, [*checks, ids])


def _ids_by_transformers(folder: Path, template: Template, asked: Asked) -> tuple[Check, list[str]]:
    """Whether `apply_chat_template` gives our ids, and what to know before calling it."""
    import transformers

    def check(kind: Any) -> tuple[Check, str]:
        tokens: Any = kind.from_pretrained(folder, local_files_only=True)

        def ids_of(messages: Any, prompt: bool) -> list[int]:
            found: list[int] = tokens.apply_chat_template(
                as_others_write(messages),
                tokenize=True,
                return_dict=False,
                add_generation_prompt=prompt,
            )
            return found

        said = f"apply_chat_template of {type(tokens).__name__} against our Template"
        name = "ids by transformers"
        made = template_check(name, said, template, asked.conversations, ids_of)
        return made, type(tokens).__name__

    found, chosen = check(transformers.AutoTokenizer)
    plain, _ = check(transformers.PreTrainedTokenizerFast) if found.wrong else (found, "")
    if found.wrong and not plain.wrong:
        return plain, [
            f"AutoTokenizer takes {chosen} for this model_type, which cuts text its own way and "
            f"gives other ids in {len(found.wrong)} or more texts: load the tokenizer with "
            "PreTrainedTokenizerFast.from_pretrained"
        ]
    return found, []


def _text_checks(source: Path, folder: Path, template: Template, asked: Asked) -> list[Check]:
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    config = _json(folder / "tokenizer_config.json")
    names = _json(folder / NAMES) if (folder / NAMES).is_file() else {}
    jinja = chat_template_in(folder, config) or ""
    rendered = Rendered(jinja, tag_names(names | config))

    def ids_of(messages: Any, prompt: bool) -> list[int]:
        text = rendered.text(messages, prompt=prompt)
        found: list[int] = backend.encode(text, add_special_tokens=False).ids
        return found

    wrong = []
    if bool(jinja) != template.chats:
        wrong.append(f"a chat template is {'there' if jinja else 'not there'}")
    if isinstance(beside := config.get("chat_template", jinja), str) and beside != jinja:
        wrong.append("the two chat templates are not one")
    said = _json(folder / GENERATION)
    ends = _ends(said)
    if ends != template.stop_ids:
        wrong.append(
            f"{GENERATION} stops at {sorted(map(str, ends))}, not at {sorted(template.stop_ids)}"
        )
    told = "the Jinja template and tokenizer.json, read back, against our Template"
    name = "chat template and tokenizer"
    return [
        template_check(name, told, template, asked.conversations, ids_of)
        if template.chats
        else plain_check(backend, template, asked.texts),
        Check(
            "ends of turn",
            "generation_config.json against the ids at which our sampler stops",
            {"stop_ids": sorted(template.stop_ids)},
            first(wrong),
        ),
    ]


def _by_transformers(folder: Path, ours: Spoken, asked: Asked) -> Check:
    """Whether `transformers` says what our decoder says with the same weights."""
    import torch
    from transformers import AutoModelForCausalLM

    theirs: Any = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, dtype=torch.float32
    )
    theirs.eval()
    with torch.inference_mode():
        logits = theirs(ours.ids_BT).logits.float()
        least, share = SAME_LOGITS
        gap = float((logits - ours.logits_BTV).abs().max())
        allowed = max(least, share * float(ours.logits_BTV.abs().max()))
        agree = close = 0
        for prompt, said in zip(asked.prompts, ours.said, strict=True):
            ids = torch.tensor([[*prompt, *said]])
            seen = theirs(ids).logits[0, len(prompt) - 1 : -1].float() + ours.banned_V
            picked = seen.argmax(-1).tolist()
            best = seen.gather(1, torch.tensor(said)[:, None])[:, 0]
            if picked == list(said):
                agree += 1
            elif float((seen.amax(-1) - best).max()) <= allowed:
                close += 1  # two tokens whose logits are equal but for rounding
    wrong = [] if gap <= allowed else [f"logits differ by {gap:.3g}, {allowed:.3g} is allowed"]
    if agree + close < len(asked.prompts):
        wrong.append(f"{len(asked.prompts) - agree - close} of {len(asked.prompts)} greedy answers")
    numbers: Mapping[str, Any] = {
        "logits": ours.logits_BTV.numel(),
        "largest_difference": gap,
        "allowed": allowed,
        "prompts": len(asked.prompts),
        "tokens": sum(map(len, ours.said)),
        "greedy_equal": agree,
        "greedy_ties": close,
    }
    said_of = "transformers in fp32 on the export against our decoder with the same weights"
    return Check("answers by transformers", said_of, numbers, tuple(wrong))


def _ends(generation: Mapping[str, Any]) -> set[Any]:
    """The ids at which an answer ends, by a generation config."""
    ends = generation.get("eos_token_id")
    return {*ends} if isinstance(ends, list) else {ends}


def _json(path: Path) -> dict[str, Any]:
    with telling(path, "read"):
        raw = path.read_bytes()
    found = parse_json(raw, path)
    return found if isinstance(found, dict) else {}
