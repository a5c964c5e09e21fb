"""The process and its machine: device, threads, memory, signals, stdout, process group."""
