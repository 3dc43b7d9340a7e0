"""The bench: every promise about speed, measured against a small reference on the same machine.

`python -m bench` prints the table. All servers and clients are started here, on 127.0.0.1, and are
gone when it ends. It needs Linux (epoll, /proc) and a C compiler.
"""
