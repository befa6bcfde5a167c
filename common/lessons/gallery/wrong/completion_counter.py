"""Starts jobs and asks until all are done. The wrong counter goes up, so it never ends."""

import threading
import time

results = []


def job(number):
    time.sleep(0.01 * number)
    results.append(number)


started = done = asked = 0
for number in range(5):
    threading.Thread(target=job, args=[number], daemon=True).start()
    started += 1
while done < started:
    asked += 1
    while results:
        results.pop()
        started += 1
print(f"{done} of {started} jobs are done; asked {asked} times")
