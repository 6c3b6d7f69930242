# Tries: AF_VSOCK, the way to a hypervisor that no network namespace closes, and the kernel's crypto sockets.
# Outcome: succeeded 0
# Stdout: ^all \d+ as they should be\n$
# Uses: attempts
import socket

attempt('vsock', lambda: socket.socket(40, socket.SOCK_STREAM), 'EPERM', 'EAFNOSUPPORT')
attempt('alg', lambda: socket.socket(38, socket.SOCK_SEQPACKET), 'EPERM', 'EAFNOSUPPORT')
report()
