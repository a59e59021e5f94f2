// RTP packets of a coded clip, written by hand: the same for every stack.
import { readFileSync } from "node:fs";

const CLIP = JSON.parse(readFileSync(process.env.CLIP, "utf8"));
const SILENCE = Buffer.from([0xf8, 0xff, 0xfe]); // an Opus frame of 20 ms

function packet(marker, payloadType, sequence, timestamp, ssrc, payload) {
  const header = Buffer.alloc(12);
  header[0] = 0x80;
  header[1] = (marker ? 0x80 : 0) | payloadType;
  header.writeUInt16BE(sequence & 0xffff, 2);
  header.writeUInt32BE(timestamp >>> 0, 4);
  header.writeUInt32BE(ssrc, 8);
  return Buffer.concat([header, payload]);
}

// Sends the clip at 25 pictures a second, again and again, and sound where `sendAudio` is given.
export function play(sendVideo, sendAudio, types = { video: 96, audio: 111 }) {
  let sequence = 1000;
  let number = 0;
  let sounds = 0;
  setInterval(() => {
    const unit = CLIP[number % CLIP.length];
    unit.forEach((payload, index) => {
      const last = index === unit.length - 1;
      const bytes = Buffer.from(payload, "base64");
      sendVideo(packet(last, types.video, sequence++, number * 3600, 2, bytes));
    });
    number += 1;
    for (let i = 0; sendAudio && i < 2; i += 1, sounds += 1) {
      sendAudio(packet(sounds === 0, types.audio, sounds, sounds * 960, 1, SILENCE));
    }
  }, 40);
}

export async function post(url, offer) {
  const answer = await fetch(url, {
    method: "POST",
    headers: { "Content-Type": "application/sdp" },
    body: offer,
  });
  const text = await answer.text();
  if (answer.status !== 201) throw new Error(`${answer.status} ${text}`);
  return text;
}
