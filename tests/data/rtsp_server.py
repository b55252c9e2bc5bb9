"""An RTSP server of GStreamer's: ``PORT VIDEO [USER PASSWORD]``, for the system's Python.

It plays the video at its pace to each client, in H.264, at ``/live``. Exit code 77: what it needs
is missing.
"""

import sys

try:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer
except (ImportError, ValueError) as error:
    print(error, file=sys.stderr)
    sys.exit(77)

Gst.init(None)
for name in ("avidemux", "jpegdec", "x264enc", "rtph264pay"):
    if Gst.ElementFactory.find(name) is None:
        print(f"GStreamer has no {name}", file=sys.stderr)
        sys.exit(77)
port, video, *login = sys.argv[1:]
server = GstRtspServer.RTSPServer(service=port, address="127.0.0.1")
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    f"( filesrc location={video} ! avidemux ! jpegdec ! "
    "x264enc tune=zerolatency key-int-max=5 ! rtph264pay name=pay0 )"
)
if login:
    auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
    token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "user")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*login), token)
    server.set_auth(auth)
    factory.add_role_from_structure(
        Gst.Structure.new_from_string(
            "user, media.factory.access=(boolean)true, media.factory.construct=(boolean)true"
        )
    )
server.get_mount_points().add_factory("/live", factory)
if not server.attach(None):
    sys.exit(f"cannot listen on port {port}")
print("listening", flush=True)
GLib.MainLoop().run()
