"""Another device than the host's, of which only shapes are known: what is left on the host, or is asked of it, is an error."""

import pytest
import torch

from quatrain.policies import CausalLM, plant
from quatrain.rollouts import Sampling
from quatrain.rollouts.rows import Prompts, Rows
from quatrain.update.fused import Targets, score
from tests.policies.families import TOKENIZER, family, sequences

NAMES = ["llama", "mistral", "gemma3", "gpt2"]
META = torch.device("meta")


def policy(name: str, **more: bool) -> CausalLM:
    made = CausalLM(family(name, torch.bfloat16), TOKENIZER, **more)
    made.base.to(META)
    for head in made.heads.values():
        head.to(META)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_the_passes_of_an_update(name: str):
    ours = policy(name, critic=True)
    forest = plant(sequences())
    width = max(map(len, sequences()))
    tokens = torch.stack([torch.nn.functional.pad(s, (0, width - len(s))) for s in sequences()])
    action = (torch.arange(width) > 1) & (torch.arange(width) < torch.tensor([[len(s)] for s in sequences()]))
    targets = Targets.of(forest, tokens, action).to(META)
    hidden = ours.hidden_of(forest)
    with torch.no_grad():
        found = score(ours, hidden, targets, temperature=0.7, head_rows=9)
    assert hidden.device == found.logp.device == META
    hidden.sum().backward()
    assert {p.grad.device for p in ours.base.parameters() if p.grad is not None} == {META}


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_answers_that_are_written(name: str):
    ours, forest = policy(name), plant(sequences())
    prompts = Prompts(forest, META)
    hidden = ours.hidden(forest.tokens, forest.position, prompts.take(torch.arange(len(forest))), prompts)
    paths = {int(path[len(s) - 1]): path[: len(s)].tolist() for path, s in zip(forest.path, sequences(), strict=True)}
    leaves = [*paths, *paths][:6]
    rows = Rows(6, ours, Sampling(40, temperature=0.7, top_p=0.9, top_k=9), spare=8)
    rows.add([len(paths[leaf]) for leaf in leaves], [torch.rand(40)] * 6, torch.stack([hidden[leaf] for leaf in leaves]))
    rows.stand_on(prompts.trunks(paths))
    rows.arrange(leaves, [1] * 6)
    rows.write(8)
    kept = rows.drop({1, 3})
    rows.arrange([leaves[row] for row in kept], [9] * 4)
    rows.write(8)
    assert rows.longest == 17
    assert {x.device for x in (rows.tokens, rows.logp, rows.drawn, *rows.stored[0])} == {META}
    with pytest.raises(RuntimeError, match="meta"):
        rows.read(4, 8)
