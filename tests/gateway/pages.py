"""What a browser says of the page that sends a request: one of another site, or one of the gateway's own."""

HERE = "http://localhost"  # where the test client says that it is
ELSEWHERE = [
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://evil.example"},
    {"Origin": "http://localhost:8888"}, {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site", "Origin": HERE},
]  # fmt: skip
FROM_HERE = [
    {"Sec-Fetch-Site": "same-origin", "Origin": HERE}, {"Sec-Fetch-Site": "none"}, {"Origin": HERE}, {},
    {"Origin": "https://lab.example", "X-Forwarded-Host": "lab.example"},
]  # fmt: skip
