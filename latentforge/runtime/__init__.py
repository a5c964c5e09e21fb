"""The process and its machine: device, threads, memory, signals, process group."""
