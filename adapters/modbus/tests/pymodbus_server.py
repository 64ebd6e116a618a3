"""A pymodbus server for tests/pymodbus.rs: `tcp` prints its port, `rtu DEVICE` serves a line.

Registers hold what the test expects; unit 3 exists, no other.
"""

import asyncio
import struct
import sys

from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
from pymodbus.framer import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer


def words(pattern, *values):
    data = struct.pack(">" + pattern, *values)
    return list(struct.unpack(f">{len(data) // 2}H", data))


def context():
    inputs = words("fHhIid", 230.5, 60000, -5, 4000000000, -70000, 1234.5678)
    holdings = [0] * 16 + words("H", 234) + [0] * 3 + words("Q", 2**63) + words("f", float("nan"))
    # pymodbus counts blocks from 1.
    device = ModbusDeviceContext(
        co=ModbusSequentialDataBlock(1, [False, True] * 4),
        di=ModbusSequentialDataBlock(1, [True, False, False]),
        ir=ModbusSequentialDataBlock(1, inputs),
        hr=ModbusSequentialDataBlock(1, holdings),
    )
    return ModbusServerContext(devices={3: device}, single=False)


async def main(kind, device=None):
    if kind == "tcp":
        server = ModbusTcpServer(context(), address=("127.0.0.1", 0))
        await server.serve_forever(background=True)
        print(server.transport.sockets[0].getsockname()[1], flush=True)
    else:
        server = ModbusSerialServer(context(), framer=FramerType.RTU, port=device, baudrate=115200)
        await server.serve_forever(background=True)
        print("serving", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
