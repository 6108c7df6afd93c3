"""Django says hello; one file, no middleware, no database."""
import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

settings.configure(ALLOWED_HOSTS=["*"], DEBUG=False, ROOT_URLCONF=__name__, SECRET_KEY="for the bench only")
django.setup()


def hello(request):
    return HttpResponse("Hello, World!", headers={"Content-Length": "13"})


urlpatterns = [path("", hello)]
app = get_wsgi_application()
