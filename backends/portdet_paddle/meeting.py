"""Where all ranks meet and tell each other small things, however long the slowest of them takes."""

from __future__ import annotations

import os
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from portdet.ranks import Gather, Place, RankError


class Meeting:
    """Sockets between rank 0 and each of the others.

    Paddle's gloo gives up after 30 s, which cannot be set, and one rank may score, draw and save for longer while the
    others wait. And its `all_gather_object` takes 6 ms where these sockets take 0.2 ms.
    """

    def __init__(self, place: Place, host: str, gather: Gather) -> None:
        """host: the address of this machine for the others. gather: another way, used once, to agree on all this."""
        self.place = place
        key = os.urandom(16)
        self.peers: list[Connection[Any, Any]] = []  # of rank 0: all others in their order; of the others: rank 0
        if place.first:
            with Listener((host, 0), backlog=place.world, authkey=key) as listener:
                gather((listener.address, key))
                found = [listener.accept() for _ in range(1, place.world)]
            ranks = {peer.recv(): peer for peer in found}
            self.peers = [ranks[rank] for rank in range(1, place.world)]
        else:
            address, key = gather(None)[0]
            self.peers = [Client(address, authkey=key)]
            self.peers[0].send(place.rank)

    def gather(self, value: Any) -> list[Any]:
        """`value` of every rank, in rank order. Raises RankError where another rank has ended."""
        try:
            if self.place.first:
                told = [value, *(peer.recv() for peer in self.peers)]
                for peer in self.peers:
                    peer.send(told)
            else:
                self.peers[0].send(value)
                told = self.peers[0].recv()
        except (EOFError, ConnectionError) as error:
            raise lost(self.place, "has ended") from error
        return told


def lost(place: Place, why: str) -> RankError:
    """What a rank says when another does not answer."""
    return RankError(f"rank {place.rank} cannot go on, another one {why}", fix="see the logs of the others")
