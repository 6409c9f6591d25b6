"""The host of a farm's services, run as a program: Postgres, Valkey and S3 on one address, until it is ended.

The embedded servers listen to their own machine alone; what comes to the address is passed on to them.
"""

import asyncio
import json
import sys
from contextlib import suppress
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer
from sqlalchemy.engine import make_url

from farm import embedded
from farm.keeper import exit_on_signal

POSTGRES, VALKEY, S3 = 5432, 6379, 9000
CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _pass_on(address: str, postgres_socket: str, valkey_port: int) -> None:
    async def to_postgres(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _join(reader, writer, *await asyncio.open_unix_connection(postgres_socket))

    async def to_valkey(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _join(reader, writer, *await asyncio.open_connection("127.0.0.1", valkey_port))

    servers = [
        await asyncio.start_server(to_postgres, address, POSTGRES),
        await asyncio.start_server(to_valkey, address, VALKEY),
    ]
    await asyncio.gather(*(server.serve_forever() for server in servers))


async def _join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    server_reader: asyncio.StreamReader,
    server_writer: asyncio.StreamWriter,
) -> None:
    await asyncio.gather(_pump(reader, server_writer), _pump(server_reader, writer))


def main(address: str, directory: Path) -> None:
    """Start everything, write the addresses to ``services.json`` in the directory, and serve."""
    with (
        exit_on_signal(),
        embedded.postgres(directory / "postgres") as postgres_url,
        embedded.valkey(directory / "valkey") as broker_url,
    ):
        store = ThreadedMotoServer(ip_address=address, port=S3, verbose=False)
        store.start()
        local, broker = make_url(postgres_url), make_url(broker_url)
        socket = f"{local.query['host']}/.s.PGSQL.{local.port or POSTGRES}"
        boto3.client("s3", endpoint_url=f"http://{address}:{S3}", **CREDENTIALS).create_bucket(Bucket="pictures")
        known = {
            "database_url": local.set(host=address, port=POSTGRES, query={}).render_as_string(hide_password=False),
            "broker_url": broker.set(host=address, port=VALKEY).render_as_string(hide_password=False),
            "store_url": "s3://pictures/farm",
            "s3_endpoint_url": f"http://{address}:{S3}",
        }
        partial = directory / "services.json.part"
        partial.write_text(json.dumps(known))
        partial.rename(directory / "services.json")
        asyncio.run(_pass_on(address, socket, broker.port or VALKEY))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
