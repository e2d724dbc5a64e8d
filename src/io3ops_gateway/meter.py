from io3ops_gateway import policy


class Ledger:
    def forget(self, worker):
        pass


class Meter(policy.Meter):
    def __init__(self, ledger, *, worker, clock):
        super().__init__(clock)
