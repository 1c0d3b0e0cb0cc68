"""An application that sends one mail through weir, with nothing but Python's own library.

SMTP_HOST, SMTP_PORT, SMTP_USER, SMTP_PASSWORD_FILE, MAIL_FROM and MAIL_TO say how.
"""

import os
import smtplib
import sys
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

setting = os.environ

message = EmailMessage()
message["From"] = setting["MAIL_FROM"]
message["To"] = setting["MAIL_TO"]
message["Subject"] = "One mail from the example application"
message["Date"] = formatdate(localtime=True)
message["Message-ID"] = make_msgid(domain=setting["MAIL_FROM"].rpartition("@")[2])
message.set_content("It came through weir.\n")

with smtplib.SMTP(setting["SMTP_HOST"], int(setting.get("SMTP_PORT", "2525")), timeout=30) as relay:
    if setting.get("SMTP_USER"):
        with open(setting["SMTP_PASSWORD_FILE"], encoding="utf-8") as file:
            relay.login(setting["SMTP_USER"], file.read().strip())
    # What comes back holds the recipients that were refused.
    refused = relay.send_message(message)

if refused:
    sys.exit(f"refused: {refused}")
print("handed over to weir")
