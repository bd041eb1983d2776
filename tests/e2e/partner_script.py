"""A partner's own program: plain aiokafka, nothing of ours. `partner_script.py BROKER RUN NUMBER`

Publishes NUMBER reports on `gotong.partners.inbound.v1`, every twentieth wrong in one of five ways, half of them in
binary and half in structured mode, and sends every tenth good one twice.
"""

import asyncio
import json
import sys
from datetime import UTC, datetime

from aiokafka import AIOKafkaProducer

TOPIC = "gotong.partners.inbound.v1"
TYPE = "gotong.report.submitted.v1"


def report(run: str, n: int) -> dict:
    return {
        "text": f"Banjir di RT {n % 20} nomor {n}, perlu perahu",
        "hazard": "flood",
        "severity": 2,
        "observed_at": datetime.now(UTC).isoformat(),
        "location": {"lon": 106.6 + (n % 100) / 250, "lat": -6.1 - (n // 100) / 40},
        "external_id": f"{run}-{n}",
        "reporter_ref": f"r{n % 7}",
    }


def spoil(body: dict, way: int) -> bytes:
    if way == 0:
        body["location"]["lat"] = 200
    elif way == 1:
        body["location"]["admin"] = "3174"
    elif way == 2:
        body["reporter"] = {"name": "Budi", "phone": "+628123"}
    elif way == 3:
        body["observed_at"] = "yesterday"
    else:
        return b'{"text": "cut off'
    return json.dumps(body).encode()


async def main(broker: str, run: str, number: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=broker, acks="all")
    await producer.start()
    good = wrong = 0
    try:
        for n in range(number):
            attributes = {
                "specversion": "1.0",
                "id": f"{run}-{n}",
                "source": f"/partners/uji-{run}",
                "type": TYPE,
                "time": datetime.now(UTC).isoformat(),
            }
            bad = n % 20 == 0
            value = spoil(report(run, n), (n // 20) % 5) if bad else json.dumps(report(run, n)).encode()
            if n % 2 and not bad:
                body = json.dumps({**attributes, "data": json.loads(value)}).encode()
                headers = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
            else:
                body = value
                headers = [(f"ce_{name}", text.encode()) for name, text in attributes.items()]
                headers.append(("content-type", b"application/json"))
            await producer.send_and_wait(TOPIC, body, key=f"{run}-{n}".encode(), headers=headers)
            if not bad and n % 10 == 1:
                await producer.send_and_wait(TOPIC, body, key=f"{run}-{n}".encode(), headers=headers)
            good, wrong = good + (not bad), wrong + bad
    finally:
        await producer.stop()
    print(json.dumps({"good": good, "wrong": wrong}))


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
