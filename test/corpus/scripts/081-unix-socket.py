# a unix socket in the run directory: a server thread and a client
import os, socket, stat, threading

server = socket.socket(socket.AF_UNIX)
server.bind('ask.sock')
server.listen()
print(stat.S_ISSOCK(os.stat('ask.sock').st_mode))


def serve():
    connection, _ = server.accept()
    with connection:
        key = connection.recv(100).decode()
        connection.sendall(cronium.getVariable(key).encode())


thread = threading.Thread(target=serve)
thread.start()
with socket.socket(socket.AF_UNIX) as client:
    client.connect('ask.sock')
    client.sendall(b'city')
    cronium.output(client.recv(100).decode())
thread.join()
os.unlink('ask.sock')
