# Tries: the network: the server's port, the host, names, packets, and sockets of other families.
# Outcome: succeeded 0
# Stdout: ^all \d+ as they should be\n$
# Uses: attempts
import socket

NO = ('ENETUNREACH', 'ECONNREFUSED', 'EHOSTUNREACH', 'EADDRNOTAVAIL', 'EPERM', 'EACCES')


def connect(family, kind, address):
    with socket.socket(family, kind) as one:
        one.settimeout(2)
        one.connect(address)


for port in (22, 80, 443, 2375, 7443, 8443):
    attempt(f'127.0.0.1:{port}', lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ('127.0.0.1', port)), *NO)
    attempt(f'the gateway, {port}', lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ('172.17.0.1', port)), *NO)
attempt('a name server', lambda: connect(socket.AF_INET, socket.SOCK_DGRAM, ('8.8.8.8', 53)), *NO)
attempt('metadata', lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ('169.254.169.254', 80)), *NO)
attempt('IPv6', lambda: connect(socket.AF_INET6, socket.SOCK_STREAM, ('2001:4860:4860::8888', 53)), *NO)
attempt('raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1), 'EPERM')
attempt('packets', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3), 'EPERM', 'EAFNOSUPPORT')
must('only lo', os.listdir('/sys/class/net') == ['lo'])
report()
