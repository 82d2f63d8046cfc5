"""Log into a guest with asyncssh, by the fleet's ssh_config, and with libssh2, and run a
command there: ssh_clients.py SSH_CONFIG KEY PORT"""

import asyncio
import socket
import sys

import asyncssh
import ssh2.utils
from ssh2.session import Session

SSH_CONFIG, KEY, PORT = sys.argv[1:]
COMMAND = "status"


async def by_asyncssh():
    async with asyncssh.connect("g00000", config=[SSH_CONFIG]) as connection:
        return (await connection.run(COMMAND, check=True)).stdout


def by_libssh2():
    session = Session()
    session.handshake(socket.create_connection(("127.0.0.1", int(PORT))))
    session.userauth_publickey_fromfile("root", KEY)
    channel = session.open_session()
    channel.execute(COMMAND)
    text = b""
    while True:
        length, data = channel.read()
        if length <= 0:
            break
        text += data
    channel.close()
    channel.wait_closed()
    assert channel.get_exit_status() == 0
    return text.decode()


print(f"asyncssh {asyncssh.__version__}:", asyncio.run(by_asyncssh()))
print(f"libssh2 {ssh2.utils.version().decode()}:", by_libssh2())
