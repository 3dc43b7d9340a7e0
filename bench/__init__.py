"""The benchmark: every performance target, measured against a small reference on the same machine.

`python -m bench` prints the table. It starts all servers and clients itself, on 127.0.0.1, and stops
them at the end. It needs Linux (epoll, /proc) and a C compiler.
"""
