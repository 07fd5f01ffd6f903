"""Parts of suites that our engine answers freely, without lm-eval: one file each, `ask(writer, settings, data, memory) -> list[Part]`."""
