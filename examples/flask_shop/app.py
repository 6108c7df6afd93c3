"""A small shop in Flask: enough routes to see what the server does with them.

    GET  /                      front page
    GET  /products/<int:id>     one product, 404 when unknown
    POST /checkout              JSON {"product": 1, "count": 2} -> the sum
    GET  /report                a streamed CSV
    GET  /slow?seconds=0.2      thinks for a while (at most 60 s)
    GET  /stream-and-wait       says its pid, then waits: something to kill
    GET  /crash                 raises

Every answer carries the worker that gave it: `X-Worker-Pid`.
"""
import os
import time

from flask import Flask, Response, abort, jsonify, request

PRODUCTS = {
    1: {"name": "Kettle", "price": 32.5},
    2: {"name": "Teapot", "price": 24.0},
    3: {"name": "Cup", "price": 6.75},
}

app = Flask(__name__)


@app.after_request
def name_the_worker(response):
    response.headers["X-Worker-Pid"] = str(os.getpid())
    return response


@app.get("/")
def front_page():
    return "Tea and what belongs to it: " + ", ".join(p["name"] for p in PRODUCTS.values()) + "\n"


@app.get("/products/<int:product_id>")
def product(product_id):
    if product_id not in PRODUCTS:
        abort(404)
    return jsonify(id=product_id, **PRODUCTS[product_id])


@app.post("/checkout")
def checkout():
    order = request.get_json()
    chosen = PRODUCTS.get(order.get("product"))
    if chosen is None:
        abort(400, "no such product")
    return jsonify(total=chosen["price"] * int(order.get("count", 1)))


@app.get("/report")
def report():
    def lines():
        yield "id,name,price\n"
        for product_id, row in PRODUCTS.items():
            yield f"{product_id},{row['name']},{row['price']}\n"

    return Response(lines(), mimetype="text/csv")


@app.get("/slow")
def slow():
    seconds = min(float(request.args.get("seconds", "0.2")), 60.0)
    time.sleep(seconds)
    return f"thought for {seconds} s\n"


@app.get("/stream-and-wait")
def stream_and_wait():
    def body():
        yield f"{os.getpid()}\n"
        time.sleep(60)

    return Response(body(), mimetype="text/plain")


@app.get("/crash")
def crash():
    raise RuntimeError("the till is on fire")
