"""Runs in a container: answers every DNS question with its own address, and prints what was asked and who connects."""

import socket
import struct
import threading

ME = socket.gethostbyname(socket.gethostname())


def dns() -> None:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", 53))
    print("ready", flush=True)
    while True:
        question, client = server.recvfrom(4096)
        end, labels = 12, []
        while question[end]:
            labels.append(question[end + 1 : end + 1 + question[end]].decode())
            end += question[end] + 1
        kind = struct.unpack(">H", question[end + 1 : end + 3])[0]
        print("DNS", ".".join(labels), flush=True)
        count = 1 if kind == 1 else 0
        answer = question[:2] + b"\x81\x80" + struct.pack(">HHHH", 1, count, 0, 0) + question[12 : end + 5]
        if count:
            answer += b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4" + socket.inet_aton(ME)
        server.sendto(answer, client)


def tcp(port: int, server: socket.socket) -> None:
    while True:
        connection, client = server.accept()
        print("TCP", port, client[0], flush=True)
        connection.close()


for number in (80, 443):
    threading.Thread(target=tcp, args=(number, socket.create_server(("0.0.0.0", number))), daemon=True).start()
dns()
