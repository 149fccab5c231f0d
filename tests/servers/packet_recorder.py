"""Writes a line for every IP packet that comes in by eth0: who sent it, to whom.

`python -S tests/servers/packet_recorder.py` needs the right to read raw packets. It answers nothing.
"""

import socket
import struct

IP, UDP_OR_TCP = 0x0800, (6, 17)


def line_of(frame: bytes) -> str:
    """Sender, receiver with its port where there is one, protocol and length; empty for what is no IP."""
    if struct.unpack("!H", frame[12:14])[0] != IP:
        return ""
    packet = frame[14:]
    length, protocol, start = struct.unpack("!H", packet[2:4])[0], packet[9], (packet[0] & 15) * 4
    sender, receiver = (socket.inet_ntoa(packet[at : at + 4]) for at in (12, 16))
    port = f":{struct.unpack('!H', packet[start + 2 : start + 4])[0]}" if protocol in UDP_OR_TCP else ""
    return f"{sender} -> {receiver}{port} protocol {protocol}, {length} bytes, {packet[start + 8 : start + 68]!r}"


if __name__ == "__main__":
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3)) as raw:
        raw.bind(("eth0", 0))
        print("listening", flush=True)
        while True:
            frame, (_, _, kind, *_) = raw.recvfrom(65535)
            # For another machine: a switch tells everybody while it does not know the port of one that was unplugged.
            if kind != socket.PACKET_OTHERHOST and (line := line_of(frame)):
                print(line, flush=True)
