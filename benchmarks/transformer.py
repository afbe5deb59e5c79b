"""How fast does the transformer train, by batch size, number type and size? One step after another on random histories.

    make benchmark WHAT=transformer OPTIONS="--device cuda --batch 32 128 512 2048"
    make benchmark WHAT=transformer OPTIONS="--batch 32 --sizes 64x2x1682 --steps 3"

Medians of three rounds. A step is forward, cross-entropy over the whole catalogue at every position, backward, AdamW.
Operations are counted, not measured: 6 for each weight of the blocks and each item's vector a token, and 12 for each
pair of positions and unit of width (Kaplan et al., 2020, appendix B, with the attention that they leave out).
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch.nn import functional

from models.sequence import GAPS, SequenceConfig, Transformer

LENGTH = 200


def operations(config: SequenceConfig, items: int) -> float:
    """Floating-point operations a training step spends on one token."""
    width = config.width
    return 6.0 * (config.layers * 12 * width**2 + width * items) + 12.0 * config.layers * config.length * width


def step_seconds(config: SequenceConfig, items: int, steps: int) -> float:
    device = torch.device(config.device)
    torch.manual_seed(0)
    net = Transformer(items, config).to(device)
    optimiser = torch.optim.AdamW(net.parameters(), fused=device.type == "cuda")
    item, target = (torch.randint(0, items, (config.batch, config.length), device=device) for _ in range(2))
    gap = torch.randint(0, GAPS, (config.batch, config.length), device=device)

    def run(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            optimiser.zero_grad()
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.bf16):
                logits = net.logits(net.hidden(item, gap, gap).flatten(0, 1))
            functional.cross_entropy(logits if config.bf16 else logits.float(), target.flatten()).backward()
            optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / count

    run(max(1, steps // 4))
    return statistics.median(run(steps) for _ in range(3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[32])
    parser.add_argument("--sizes", nargs="+", default=["64x2x3706", "256x4x3706"], help="width x layers x items")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}, histories of {LENGTH}\n")
    print("| width x layers x items | numbers | batch | ms a step | tokens/s | TFLOP/s | GiB |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for size in options.sizes:
        width, layers, items = (int(part) for part in size.split("x"))
        for bf16 in (False, True):
            for batch in options.batch:
                config = SequenceConfig(
                    length=LENGTH,
                    width=width,
                    layers=layers,
                    heads=max(2, width // 64),
                    batch=batch,
                    device=options.device,
                    bf16=bf16,
                )
                seconds = step_seconds(config, items, options.steps)
                tokens = batch * LENGTH / seconds
                memory = torch.cuda.max_memory_allocated() / 2**30 if options.device == "cuda" else 0.0
                print(
                    f"| {size} | {'bf16' if bf16 else 'fp32'} | {batch:,} | {seconds * 1e3:.1f} | {tokens:,.0f} "
                    f"| {tokens * operations(config, items) / 1e12:.3g} | {memory:.1f} |",
                    flush=True,
                )
                if options.device == "cuda":
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    main()
