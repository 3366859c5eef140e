import { describe, expect, it } from 'vitest';
import { problemSentence } from './client.ts';
import { EventParser } from './events.ts';

describe('an event stream', () => {
  it('is read the same however it is cut', () => {
    const stream = ': hello\n\nevent: study\r\ndata: {"a":\r\ndata: 1}\r\n\r\nevent: other\ndata:x\n\n';
    const expected = [
      { event: 'study', data: '{"a":\n1}' },
      { event: 'other', data: 'x' },
    ];
    for (let cut = 1; cut <= stream.length; cut++) {
      const parser = new EventParser();
      const events = [];
      for (let i = 0; i < stream.length; i += cut) events.push(...parser.push(stream.slice(i, i + cut)));
      expect(events).toEqual(expected);
    }
  });

  it('gives no event for one that has not ended', () => {
    expect(new EventParser().push('event: study\ndata: {}\n')).toEqual([]);
  });
});

describe('a problem document', () => {
  it('becomes a sentence with its request id', () => {
    const body = JSON.stringify({ title: 'Not found', detail: 'No study has this UID', request_id: 'r7' });
    expect(problemSentence(body)).toBe('Not found. No study has this UID. (Request r7.)');
  });

  it.each(['', 'null', '"x"', '{}', '<html>'])('is not made out of %j', (body) => {
    expect(problemSentence(body)).toBeNull();
  });
});
